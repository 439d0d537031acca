// The address of the page is the whole state of a view, so that any view can be passed on.

import { element } from "./dom.js";

export const STATUSES = ["failed", "active", "waiting", "prioritized", "delayed", "paused",
  "waiting-children", "completed"];
export const WINDOWS = ["1h", "24h", "7d", ""];
// A little less than the longest address that the server reads (MAX_LINE_BYTES in api.py).
const MAX_ADDRESS = 120_000;
const MAX_TEXT = 500; // LONGEST_TEXT in parameters.py

const DEFAULTS = {
  queue: "", prefix: "", target: "", status: "failed", order: "desc", page: 1, name: "", text: "", group: "",
  window: "", job: "", logs: 0,
  // The job's id percent-encoded, where it is not UTF-8 and `job` therefore ambiguous.
  job_encoded: "",
  // BullMQ's key of a job, as exemplars name it; it leads on to the job.
  job_key: "",
};

/** Read the part after the question mark. What makes no sense becomes the default. */
export function readAddress(search) {
  const given = new URLSearchParams(search);
  const address = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) {
    if (given.has(name)) address[name] = given.get(name);
  }
  if (!STATUSES.includes(address.status)) address.status = DEFAULTS.status;
  if (address.order !== "asc") address.order = DEFAULTS.order;
  if (!/^(\d{1,6}[smhdw]?)?$/.test(address.window)) address.window = DEFAULTS.window;
  address.page = wholeNumber(address.page, DEFAULTS.page);
  address.logs = wholeNumber(address.logs, DEFAULTS.logs);
  if (!address.job || !/^(?:[\w.~-]|%[\dA-F]{2})*$/.test(address.job_encoded)) address.job_encoded = "";
  if (address.job_key) return { ...DEFAULTS, job_key: address.job_key };
  if (!address.queue) return { ...DEFAULTS };
  if (address.status !== "failed") Object.assign(address, { group: "", window: "" });
  return address;
}

/** What stands in an address and makes no sense, as `window=5y`. */
export function misread(search) {
  const understood = readAddress(search);
  return [...new URLSearchParams(search)]
    .filter(([name, value]) => name in DEFAULTS && value !== "" && value !== `${understood[name]}`)
    .map(([name, value]) => `${name}=${value}`);
}

function wholeNumber(text, otherwise) {
  return /^[1-9]\d{0,8}$/.test(String(text)) ? Number(text) : otherwise;
}

/** The address as a relative link; defaults are left out. */
export function writeAddress(address) {
  const query = new URLSearchParams();
  for (const [name, standard] of Object.entries(DEFAULTS)) {
    const value = address[name] ?? standard;
    if (name === "job_encoded" && !address.job) continue;
    if (value !== standard && value !== "") query.set(name, value);
  }
  return query.size ? `?${query}` : "./";
}

/** An address that differs from another one in a few parts. */
export function change(address, parts) {
  return { ...address, ...parts };
}

/** The same queue, and the same list, without any filter. */
export function unfiltered(address) {
  return change(address, { group: "", name: "", text: "", page: 1, job: "", logs: 0 });
}

/** A queue; `prefix` and `target` are given where its name alone does not say which one it is. */
export function queueAddress({ queue, prefix, target }, status = "failed") {
  return { ...DEFAULTS, queue, prefix: prefix ?? "", target: target ?? "", status };
}

export function jobAddress(place, job) {
  return change(queueAddress(place), jobParts(job));
}

/** What an address has of a job, from what the API says of it. */
export function jobParts({ id, encodedId }) {
  return { job: id, job_encoded: encodedId ?? "", logs: 0 };
}

/** A link to the jobs that hold a text, or only its text where the API looks for no longer one. */
export function textLink(address, attributes, ...children) {
  return address.text.length <= MAX_TEXT ? link(address, attributes, ...children) : children;
}

/** A link to a job, or only its text where no server would read so long an address. */
export function jobLink(address, attributes, ...children) {
  if (address.job && writeAddress(address).length <= MAX_ADDRESS) {
    return link(address, attributes, ...children);
  }
  return element("span", { ...attributes, title: address.job ? "too long to be opened" : "no id" },
    ...children);
}

/** A link to another view. It is a real link; page.js handles plain clicks on it. */
export function link(address, attributes, ...children) {
  return element("a", { href: writeAddress(address), "data-view": true, ...attributes },
    ...children);
}
