// The address of the page contains the whole state of a view, so that any view can be shared.

import { html } from "./html.js";

/** @import { Content } from "./html.js" */
/** @typedef {Record<string, unknown>} Attributes */

export const STATUSES = /** @type {const} */ ([
  "failed",
  "active",
  "waiting",
  "prioritized",
  "delayed",
  "paused",
  "waiting-children",
  "completed",
]);
/** @typedef {(typeof STATUSES)[number]} Status */
export const WINDOWS = ["1h", "24h", "7d", ""];
// A little less than the longest address that the server reads (MAX_LINE_BYTES in api.py).
const MAX_ADDRESS = 120_000;
const MAX_TEXT = 500; // MAX_TEXT_LENGTH in parameters.py

const DEFAULTS = {
  queue: "",
  prefix: "",
  target: "",
  status: /** @type {Status} */ ("failed"),
  order: "desc",
  page: 1,
  name: "",
  text: "",
  group: "",
  window: "",
  job: "",
  logs: 0,
  // The job's id percent-encoded, where it is not UTF-8 and `job` therefore ambiguous.
  job_encoded: "",
  // BullMQ's key of a job, as exemplars name it; it leads on to the job.
  job_key: "",
};
/** @typedef {typeof DEFAULTS} Address */
/** @typedef {{queue: string, prefix?: string, target?: string}} QueuePlace */
/** @typedef {{id: string, encodedId?: string}} JobIds */

/**
 * Read the part after the question mark. Invalid values become the default.
 *
 * @param {string} search
 * @returns {Address}
 */
export function readAddress(search) {
  const given = new URLSearchParams(search);
  const value = (/** @type {keyof Address} */ name) => given.get(name) ?? "";
  if (value("job_key")) return { ...DEFAULTS, job_key: value("job_key") };
  if (!value("queue")) return { ...DEFAULTS };
  const status = STATUSES.find((known) => known === value("status")) ?? DEFAULTS.status;
  const isFailed = status === "failed";
  const job = value("job");
  return {
    queue: value("queue"),
    prefix: value("prefix"),
    target: value("target"),
    status,
    order: value("order") === "asc" ? "asc" : DEFAULTS.order,
    page: wholeNumber(value("page"), DEFAULTS.page),
    name: value("name"),
    text: value("text"),
    // Links of alerts have the name that the API and metrics use.
    group: isFailed ? value("group") || (given.get("fingerprint") ?? "") : "",
    window: isFailed && /^\d{1,6}[smhdw]?$/.test(value("window")) ? value("window") : "",
    job,
    logs: wholeNumber(value("logs"), DEFAULTS.logs),
    job_encoded:
      job && /^(?:[\w.~-]|%[\dA-F]{2})*$/.test(value("job_encoded")) ? value("job_encoded") : "",
    job_key: "",
  };
}

/**
 * The invalid parameters of an address, such as `window=5y`.
 *
 * @param {string} search
 */
export function misread(search) {
  const understood = new Map(Object.entries(readAddress(search)));
  return [...new URLSearchParams(search)]
    .filter(([name, value]) => value !== "" && understood.has(name))
    .filter(([name, value]) => value !== `${understood.get(name)}`)
    .map(([name, value]) => `${name}=${value}`);
}

/**
 * @param {string} text
 * @param {number} otherwise
 */
function wholeNumber(text, otherwise) {
  return /^[1-9]\d{0,8}$/.test(text) ? Number(text) : otherwise;
}

/**
 * The address as a relative link, without default values.
 *
 * @param {Partial<Address>} address
 */
export function writeAddress(address) {
  const query = new URLSearchParams();
  const given = new Map(Object.entries(address));
  for (const [name, standard] of Object.entries(DEFAULTS)) {
    const value = given.get(name) ?? standard;
    if (name === "job_encoded" && !address.job) continue;
    if (value !== standard && value !== "") query.set(name, String(value));
  }
  return [...query].length ? `?${query}` : "./";
}

/**
 * An address that differs from another one in a few parts.
 *
 * @param {Address} address
 * @param {Partial<Address>} parts
 * @returns {Address}
 */
export function change(address, parts) {
  return { ...address, ...parts };
}

/**
 * The same queue, and the same list, without any filter.
 *
 * @param {Address} address
 */
export function unfiltered(address) {
  return change(address, { group: "", name: "", text: "", page: 1, job: "", logs: 0 });
}

/**
 * A queue; `prefix` and `target` are given if its name alone is ambiguous.
 *
 * @param {QueuePlace} place
 * @param {Status} status
 * @returns {Address}
 */
export function queueAddress({ queue, prefix, target }, status = "failed") {
  return { ...DEFAULTS, queue, prefix: prefix ?? "", target: target ?? "", status };
}

/**
 * @param {QueuePlace} place
 * @param {JobIds} job
 */
export function jobAddress(place, job) {
  return change(queueAddress(place), jobParts(job));
}

/**
 * The parameters of an address for a job from the API.
 *
 * @param {JobIds} job
 */
export function jobParts({ id, encodedId }) {
  return { job: id, job_encoded: encodedId ?? "", logs: 0 };
}

/**
 * A link to the jobs that contain a text, or plain text if it is too long for a search of the API.
 *
 * @param {Address} address
 * @param {Attributes} attributes
 * @param {Content} children
 */
export function textLink(address, attributes, children) {
  return address.text.length <= MAX_TEXT ? link(address, attributes, children) : children;
}

/**
 * A link to a job, or plain text if the address would be too long for a server.
 *
 * @param {Address} address
 * @param {Attributes} attributes
 * @param {Content} children
 */
export function jobLink(address, attributes, children) {
  if (address.job && writeAddress(address).length <= MAX_ADDRESS) {
    return link(address, attributes, children);
  }
  const title = address.job ? "too long to be opened" : "no id";
  return html`<span ...${attributes} title=${title}>${children}</span>`;
}

/**
 * A link to another view. It is a real link; page.js handles plain clicks on it.
 *
 * @param {Partial<Address>} address
 * @param {Attributes} attributes
 * @param {Content} children
 */
export function link(address, attributes, children) {
  return html`<a href=${writeAddress(address)} data-view ...${attributes}>${children}</a>`;
}
