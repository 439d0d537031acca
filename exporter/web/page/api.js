// All that the page knows about the API: its addresses, its credential and its errors.

import { forget, recall, remember } from "./session.js";

/** @import { Address } from "./address.js" */
/** @typedef {import("openapi").components["schemas"]} Answers What the API answers, by openapi.json. */

/**
 * @template T what is kept of the answer
 * @typedef {object} Request
 * @property {string} path where to ask
 * @property {number} every after how many seconds to ask again
 * @property {string} series of requests whose earlier answer may stay on the screen, dimmed, until
 *   the new one is there
 * @property {(answer: T) => T} [trim] keeps of the answer what the view shows
 * @property {(sources: import("./loader.js").Sources) => unknown} [watch] a value whose change means
 *   that this has changed too
 */

export const PER_PAGE = 25;
const SCHEDULERS_SHOWN = 100;
const TIME_LIMIT_MS = 60_000;
const MAX_REASON_LENGTH = 400;

/** Something other than an answer. */
export class Refusal extends Error {
  /**
   * @param {number} status of HTTP; 0 where there was no answer at all
   * @param {string} message what the API said, or ""
   * @param {number | null} retryAfter in seconds
   */
  constructor(status, message, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }

  /** Whether nothing else can be read now either; too many searches hinder searches only. */
  get concernsAll() {
    return this.status === 0 || (this.status >= 500 && !this.isBusy);
  }

  get isBusy() {
    return this.status === 503 && /search/i.test(this.message);
  }
}

export function credential() {
  return recall("credential");
}

/**
 * A header can carry printable ASCII only; anything else cannot be a key.
 *
 * @param {string} text
 */
export function canBeCredential(text) {
  return /^[\x21-\x7e]+$/.test(text);
}

/** @param {string} text */
export function keepCredential(text) {
  remember("credential", text);
}

export function dropCredential() {
  forget("credential");
}

/**
 * @param {string} text
 * @returns {Record<string, string>}
 */
function credentialHeader(text) {
  const isToken = text.startsWith("eyJ") && text.split(".").length === 3;
  return isToken ? { Authorization: `Bearer ${text}` } : { "X-API-KEY": text };
}

/** @returns {Request<Answers["Queues"]>} */
export function queuesRequest() {
  return { path: "v1/jobs/queues?detail=true", every: 10, series: "queues" };
}

/**
 * @param {Address} address
 * @returns {Request<Answers["QueueJobs"]>}
 */
export function jobsRequest(address) {
  const { queue, prefix, target, status, order, page, name, text, group } = address;
  const path = queuePath(queue, "", {
    status,
    page,
    limit: PER_PAGE,
    order,
    prefix,
    target,
    name,
    text,
    // A window alone would read all jobs for a page of them; a group does so anyway.
    window: group ? address.window : "",
    fingerprint: group,
    brief: "true",
    detail: "true",
  });
  const series = `jobs ${status} ${target} ${prefix} ${queue}`;
  return { path, every: 10, trim: trimJobs, series };
}

/**
 * @param {Address} address
 * @returns {Request<Answers["Place"]>}
 */
export function keyRequest({ job_key: key }) {
  return { path: `v1/jobs/keys/${encode(key)}`, every: 60, series: `key ${key}` };
}

/**
 * Grouping reads many jobs: only once a minute, or when the number of failed jobs changes.
 *
 * @param {Address} address
 * @returns {Request<Answers["Failures"]>}
 */
export function failuresRequest({ queue, prefix, target, window }) {
  return {
    path: queuePath(queue, "/failures", { window, limit: 50, prefix, target }),
    every: 60,
    series: `failures ${target} ${prefix} ${queue}`,
    watch: (sources) => sources.jobs?.answer?.counts?.failed,
  };
}

/**
 * One group, at whatever time it failed: the window of a link to it may have passed.
 *
 * @param {Address} address
 * @returns {Request<Answers["Failures"]>}
 */
export function groupRequest({ queue, prefix, target, group }) {
  return {
    path: queuePath(queue, "/failures", { fingerprint: group, limit: 1, prefix, target }),
    every: 60,
    series: `group ${target} ${prefix} ${queue} ${group}`,
  };
}

/**
 * @param {Address} address
 * @returns {Request<Answers["Schedulers"]>}
 */
export function schedulersRequest({ queue, prefix, target }) {
  const path = queuePath(queue, "/schedulers", { limit: SCHEDULERS_SHOWN, prefix, target });
  return { path, every: 60, series: `schedulers ${target} ${prefix} ${queue}` };
}

/**
 * @param {Address} address
 * @returns {Request<Answers["QueueJob"]>}
 */
export function jobRequest({ queue, prefix, target, job, job_encoded: encoded, logs }) {
  const [segment, id] = inPath(job);
  const query = { id, logsPage: logs || "", prefix, target };
  const path = queuePath(queue, `/jobs/${encoded || segment}`, query);
  return { path, every: 10, series: `job ${target} ${prefix} ${queue} ${encoded || job}` };
}

/**
 * @param {string} name
 * @param {string} rest
 * @param {Record<string, string | number>} query what is "" is not asked for
 */
function queuePath(name, rest, query) {
  const [segment, queue] = inPath(name);
  const given = Object.entries({ queue, ...query })
    .filter(([, value]) => value !== "")
    .map(([key, value]) => [key, String(value)]);
  const search = new URLSearchParams(given).toString();
  return `v1/jobs/queues/${segment}${rest}${search ? `?${search}` : ""}`;
}

/**
 * The part of a path for a name, and the parameter to use in its place, if necessary.
 *
 * @param {string} name
 * @returns {[string, string]}
 */
function inPath(name) {
  // Browsers resolve these two, percent-encoded too.
  return name === "." || name === ".." ? ["-", name] : [encode(name), ""];
}

/** @param {string} text */
function encode(text) {
  // Half of a surrogate pair cannot be written in an address; it would be an exception.
  return encodeURIComponent(text.replace(/\p{Surrogate}/gu, "\ufffd"));
}

/**
 * Keep only what lists show: what is not kept cannot make them look different.
 *
 * @param {Answers["QueueJobs"]} answer
 * @returns {Answers["QueueJobs"]}
 */
function trimJobs(answer) {
  const jobs = answer.jobs.map((job) => ({
    ...job,
    failedReason: job.failedReason?.slice(0, MAX_REASON_LENGTH) ?? null,
    data: null,
    stacktrace: [],
    returnValue: null,
    ingestionSourceId: null,
    error: null,
  }));
  return { ...answer, jobs };
}

/**
 * Ask the API.
 *
 * @template T
 * @param {Request<T>} request
 * @param {AbortSignal} signal
 * @returns {Promise<{answer: T, text: string}>} the text says whether two answers differ
 * @throws {Refusal} or an AbortError if `signal` says so
 */
export async function ask(request, signal) {
  const response = await get(request.path, signal);
  if (!response.ok) throw await refusal(response);
  const whole = await readJson(response, signal);
  const answer = request.trim ? request.trim(whole) : whole;
  return { answer, text: JSON.stringify(answer) };
}

/**
 * @param {string} path
 * @param {AbortSignal} signal
 */
async function get(path, signal) {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), TIME_LIMIT_MS);
  signal.addEventListener("abort", () => limit.abort(), { once: true });
  const headers = { Accept: "application/json", ...credentialHeader(credential() ?? "") };
  try {
    return await fetch(path, { headers, signal: limit.signal, cache: "no-store" });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Refusal(0, limit.signal.aborted ? "it did not answer in a minute" : "");
  } finally {
    clearTimeout(timer);
  }
}

/**
 * @param {Response} response
 * @param {AbortSignal} signal
 */
async function readJson(response, signal) {
  try {
    return await response.json();
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Refusal(0, "its answer was cut off or is not JSON");
  }
}

/** @param {Response} response */
async function refusal(response) {
  const said = await response.json().catch(() => ({}));
  const message = typeof said?.message === "string" ? said.message : "";
  const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  // A valid credential would be accepted at once, whatever others have sent from the same address.
  const isRefused = response.status === 429 && response.headers.has("WWW-Authenticate");
  const status = isRefused ? 401 : response.status;
  return new Refusal(status, message, Number.isNaN(seconds) ? null : seconds);
}
