// All the page knows about the API: its addresses, its credential and its ways of saying no.

import { forget, recall, remember } from "./session.js";

export const PER_PAGE = 25;
const SCHEDULERS_SHOWN = 100;
const TIME_LIMIT = 60_000;
const REASON_IN_LISTS = 400;

/** Something other than an answer. `status` is 0 where there was no answer at all. */
export class Refusal extends Error {
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

/** A header can carry printable ASCII only; anything else cannot be a key. */
export function canBeCredential(text) {
  return /^[\x21-\x7e]+$/.test(text);
}

export function keepCredential(text) {
  remember("credential", text);
}

export function dropCredential() {
  forget("credential");
}

function credentialHeader(text) {
  const isToken = text.startsWith("eyJ") && text.split(".").length === 3;
  return isToken ? { Authorization: `Bearer ${text}` } : { "X-API-KEY": text };
}

// Requests. `path` is where to ask, `trim` keeps of the answer what the view shows, `every` is
// after how many seconds to ask again, `series` marks requests whose earlier answer may stay on
// the screen, dimmed, until the new one is there.

export function queuesRequest() {
  return { path: "v1/jobs/queues?detail=true", every: 10, series: "queues" };
}

export function jobsRequest(address) {
  const { queue, prefix, target, status, order, page, name, text, group } = address;
  // A window alone would read all jobs for a page of them; a group does so anyway.
  const window = group ? address.window : "";
  const query = { status, page, limit: PER_PAGE, order, prefix, target, name, text,
    window, fingerprint: group, brief: "true", detail: "true" };
  return { path: queuePath(queue, "", query), every: 10, trim: trimJobs,
    series: `jobs ${status} ${target} ${prefix} ${queue}` };
}

export function keyRequest({ job_key: key }) {
  return { path: `v1/jobs/keys/${escape(key)}`, every: 60, series: `key ${key}` };
}

export function failuresRequest({ queue, prefix, target, window }) {
  const path = queuePath(queue, "/failures", { window, limit: 50, prefix, target });
  // Grouping reads many jobs: only once a minute, or when the number of failed jobs changes.
  return { path, every: 60, series: `failures ${target} ${prefix} ${queue}`,
    watch: (sources) => sources.jobs?.answer?.counts?.failed };
}

export function schedulersRequest({ queue, prefix, target }) {
  const path = queuePath(queue, "/schedulers", { limit: SCHEDULERS_SHOWN, prefix, target });
  return { path, every: 60, series: `schedulers ${target} ${prefix} ${queue}` };
}

export function jobRequest({ queue, prefix, target, job, job_encoded: encoded, logs }) {
  const [segment, id] = inPath(job);
  const path = queuePath(queue, `/jobs/${encoded || segment}`,
    { id, logsPage: logs || "", prefix, target });
  return { path, every: 10, series: `job ${target} ${prefix} ${queue} ${encoded || job}` };
}

function queuePath(name, rest, query) {
  const [segment, queue] = inPath(name);
  const given = Object.entries({ queue, ...query }).filter(([, value]) => value !== "");
  const search = new URLSearchParams(given).toString();
  return `v1/jobs/queues/${segment}${rest}${search ? `?${search}` : ""}`;
}

/** The part of a path for a name, and what to put into the query in its place, if anything. */
function inPath(name) {
  // Browsers resolve these two, percent-encoded too.
  return name === "." || name === ".." ? ["-", name] : [escape(name), ""];
}

function escape(text) {
  // Half of a surrogate pair cannot be written in an address; it would be an exception.
  return encodeURIComponent(text.toWellFormed ? text.toWellFormed() : text);
}

/** Keep only what lists show: what is not kept cannot make them look different. */
function trimJobs(answer) {
  const jobs = (answer.jobs ?? []).map((job) => ({
    id: job.id, encodedId: job.encodedId, name: job.name, state: job.state, attemptsMade: job.attemptsMade,
    timestamp: job.timestamp, processedOn: job.processedOn, finishedOn: job.finishedOn,
    failedReason: job.failedReason?.slice(0, REASON_IN_LISTS) ?? null,
  }));
  return { ...answer, jobs };
}

/** Ask, and return {answer, text}; throws a Refusal, or an AbortError if `signal` says so. */
export async function ask(request, signal) {
  const response = await get(request.path, signal);
  if (!response.ok) throw await refusal(response);
  const whole = await readJson(response, signal);
  const answer = request.trim ? request.trim(whole) : whole;
  return { answer, text: JSON.stringify(answer) };
}

async function get(path, signal) {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), TIME_LIMIT);
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

async function readJson(response, signal) {
  try {
    return await response.json();
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Refusal(0, "its answer was cut off or is not JSON");
  }
}

async function refusal(response) {
  const said = await response.json().catch(() => ({}));
  const message = typeof said?.message === "string" ? said.message : "";
  const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  // A valid credential would be let in at once, whatever others have sent from the same address.
  const isRefused = response.status === 429 && response.headers.has("WWW-Authenticate");
  return new Refusal(isRefused ? 401 : response.status, message, Number.isNaN(seconds) ? null : seconds);
}
