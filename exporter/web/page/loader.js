// Fetches what a view needs and keeps it up to date. Knows nothing about the screen.

import { ask, Refusal } from "./api.js";

/** @import { Answers, Request } from "./api.js" */

/**
 * Why the last attempt failed.
 *
 * @typedef {object} Problem
 * @property {number} status of HTTP; 0 where there was no answer
 * @property {string} message
 * @property {boolean} busy whether too many others search at this moment
 * @property {number} until when the next attempt is due, in epoch milliseconds
 */

/**
 * What is known of one request. Times are in epoch milliseconds.
 *
 * @template T
 * @typedef {object} Source
 * @property {Request<T>} request
 * @property {T | null} answer the newest
 * @property {string} text the same as text, to compare it
 * @property {number} readAt when it was read; 0: never
 * @property {number} dueAt when it is to be read again
 * @property {Problem | null} problem of the last attempt
 * @property {boolean} busy whether it is being asked for
 * @property {boolean} outdated whether the answer is that of an earlier request of the same series
 * @property {unknown} [watched] what `request.watch` said last
 */

/**
 * @typedef {object} Sources
 * @property {Source<Answers["Queues"]>} [queues]
 * @property {Source<Answers["QueueJobs"]>} [jobs]
 * @property {Source<Answers["Failures"]>} [groups]
 * @property {Source<Answers["Failures"]>} [group] one that is not among the groups
 * @property {Source<Answers["Schedulers"]>} [schedulers]
 * @property {Source<Answers["QueueJob"]>} [job]
 * @property {Source<Answers["Place"]>} [key]
 */

const RETRY_AFTER_SECONDS = 10;
const MAX_KEPT_ANSWERS = 8;

export class Loader {
  paused = false;
  /** @type {Sources} */
  sources = {};
  #blockedUntil = 0;
  /** @type {Map<string, Source<any>>} by path, the one that was read last at the end */
  #kept = new Map();
  #view = new AbortController();
  #changed;

  /**
   * @param {(source: Source<any>, news: boolean) => void} changed called after each attempt; `news`
   *   says whether anything is different from what is on the screen
   */
  constructor(changed) {
    this.#changed = changed;
  }

  /** @returns {Source<any>[]} */
  get all() {
    return Object.values(this.sources);
  }

  /**
   * Show another view: pending requests of the previous one are cancelled.
   *
   * @param {Record<string, Request<any>>} requests by the names of their sources
   */
  open(requests) {
    this.#view.abort();
    this.#view = new AbortController();
    /** @type {Map<string, Source<any>>} */
    const former = new Map(Object.entries(this.sources));
    this.sources = Object.fromEntries(
      Object.entries(requests).map(([name, request]) => [
        name,
        this.#start(request, former.get(name)),
      ]),
    );
    this.#loadDue(Date.now(), true);
  }

  /**
   * Add one more request to this view.
   *
   * @param {string} name of its source
   * @param {Request<any>} request
   */
  add(name, request) {
    /** @type {Map<string, Source<any>>} */
    const sources = new Map(Object.entries(this.sources));
    const former = sources.get(name);
    if (former?.request.path === request.path) return;
    this.sources = { ...this.sources, [name]: this.#start(request, former) };
    this.#loadDue(Date.now(), true);
  }

  /** Forget everything, as on signing out. */
  clear() {
    this.#kept.clear();
    this.sources = {};
    this.#blockedUntil = 0;
    this.open({});
  }

  /**
   * @param {Request<any>} request
   * @param {Source<any> | undefined} former
   * @returns {Source<any>}
   */
  #start(request, former) {
    const source = {
      request,
      answer: null,
      text: "",
      readAt: 0,
      dueAt: 0,
      problem: null,
      busy: false,
      outdated: false,
    };
    const same = former?.request.path === request.path && !former.outdated ? former : null;
    const kept = same ?? this.#kept.get(request.path);
    if (kept?.answer) {
      const { answer, text, readAt, watched } = kept;
      return { ...source, answer, text, readAt, watched, dueAt: readAt + request.every * 1000 };
    }
    if (former?.answer && former.request.series === request.series) {
      return { ...source, answer: former.answer, readAt: former.readAt, outdated: true };
    }
    return source;
  }

  /** Called every second. */
  tick() {
    if (!document.hidden) this.#loadDue(Date.now(), false);
  }

  /** Ask again now, whatever the clock says; a server that said "wait" is still heeded. */
  refresh() {
    for (const source of this.all) source.dueAt = 0;
    this.#loadDue(Date.now(), true);
  }

  /**
   * @param {number} now
   * @param {boolean} evenIfPaused
   */
  #loadDue(now, evenIfPaused) {
    if (now < this.#blockedUntil) return;
    for (const source of this.all) {
      const incomplete = source.outdated || !source.answer;
      const wanted = evenIfPaused || !this.paused || incomplete;
      if (wanted && !source.busy && now >= source.dueAt) this.#load(source);
    }
  }

  /** @param {Source<any>} source */
  async #load(source) {
    const { signal } = this.#view;
    source.busy = true;
    let read;
    let error;
    try {
      read = await ask(source.request, signal);
    } catch (raised) {
      error = raised;
    }
    // The view has changed meanwhile: the answer is too late.
    if (signal.aborted) return;
    source.busy = false;
    if (read) this.#succeeded(source, read);
    else this.#failed(source, error);
  }

  /**
   * @param {Source<any>} source
   * @param {{answer: any, text: string}} read
   */
  #succeeded(source, { answer, text }) {
    const news = source.text !== text || source.problem || source.outdated;
    const now = Date.now();
    const dueAt = now + source.request.every * 1000;
    Object.assign(source, { problem: null, outdated: false, readAt: now, dueAt });
    if (source.text !== text) Object.assign(source, { answer, text });
    this.#keep(source);
    this.#hasten();
    this.#changed(source, Boolean(news));
  }

  /**
   * @param {Source<any>} source
   * @param {unknown} error
   */
  #failed(source, error) {
    // An error of the page itself must not look like one of the server.
    if (!(error instanceof Refusal)) console.error(error);
    const refusal = error instanceof Refusal ? error : new Refusal(0, String(error));
    const { status, message, isBusy: busy } = refusal;
    const seconds = refusal.retryAfter ?? RETRY_AFTER_SECONDS;
    source.dueAt = Date.now() + Math.max(1, seconds) * 1000;
    if (status === 429) this.#blockedUntil = source.dueAt;
    // A request that was rejected will be rejected again.
    if (status === 400) source.dueAt = Number.POSITIVE_INFINITY;
    source.problem = { status, message, busy, until: source.dueAt };
    if (error instanceof Refusal && error.concernsAll) this.#spread(source);
    this.#changed(source, true);
  }

  /**
   * Answers that were not requested just now count as being as old, and are due at the same time.
   *
   * @param {Source<any>} source
   */
  #spread({ problem, dueAt }) {
    for (const other of this.all) {
      if (!other.busy && !other.problem) Object.assign(other, { problem, dueAt });
    }
  }

  /** @param {Source<any>} source */
  #keep(source) {
    this.#kept.delete(source.request.path);
    this.#kept.set(source.request.path, source);
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > MAX_KEPT_ANSWERS) this.#kept.delete(oldest);
  }

  /** A source that watches another one is due as soon as what it watches has changed. */
  #hasten() {
    for (const source of this.all) {
      const seen = source.request.watch?.(this.sources);
      if (seen === undefined) continue;
      if (source.watched !== undefined && source.watched !== seen && !source.problem) {
        source.dueAt = 0;
      }
      source.watched = seen;
    }
  }
}
