// Fetches what a view needs and keeps it fresh. Knows nothing of the screen.

import { ask } from "./api.js";

const RETRY_AFTER = 10;
const KEPT = 8;

export class Loader {
  /** @param changed called whenever something to be shown has changed */
  constructor(changed) {
    this.changed = changed;
    this.sources = {};
    this.paused = false;
    this.blockedUntil = 0;
    this.kept = new Map();
    this.view = new AbortController();
  }

  /** Show another view: what the former one still waits for is given up. */
  open(requests) {
    this.view.abort();
    this.view = new AbortController();
    const former = this.sources;
    this.sources = {};
    for (const [name, request] of Object.entries(requests)) {
      this.sources[name] = this.#start(request, former[name]);
    }
    this.#loadDue(Date.now(), true);
  }

  /** Forget everything, as on signing out. */
  clear() {
    this.kept.clear();
    this.sources = {};
    this.blockedUntil = 0;
    this.open({});
  }

  #start(request, former) {
    const source = { request, answer: null, text: "", readAt: 0, dueAt: 0, problem: null,
      busy: false, outdated: false };
    const same = former?.request.path === request.path && !former.outdated ? former : null;
    const kept = same ?? this.kept.get(request.path);
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
    for (const source of Object.values(this.sources)) source.dueAt = 0;
    this.#loadDue(Date.now(), true);
  }

  #loadDue(now, evenIfPaused) {
    if (now < this.blockedUntil) return;
    for (const source of Object.values(this.sources)) {
      const incomplete = source.outdated || !source.answer;
      const wanted = evenIfPaused || !this.paused || incomplete;
      if (wanted && !source.busy && now >= source.dueAt) this.#load(source);
    }
  }

  async #load(source) {
    const { signal } = this.view;
    source.busy = true;
    let outcome;
    try {
      outcome = await ask(source.request, signal);
    } catch (error) {
      outcome = { error };
    }
    // The view has changed meanwhile: whatever came is too late.
    if (signal.aborted) return;
    source.busy = false;
    if (outcome.error) this.#failed(source, outcome.error);
    else this.#succeeded(source, outcome);
  }

  #succeeded(source, { answer, text }) {
    const news = source.text !== text || source.problem || source.outdated;
    const now = Date.now();
    Object.assign(source, { problem: null, outdated: false, readAt: now,
      dueAt: now + source.request.every * 1000 });
    if (source.text !== text) Object.assign(source, { answer, text });
    this.#keep(source);
    this.#hasten();
    this.changed(source, Boolean(news));
  }

  #failed(source, error) {
    const seconds = error.retryAfter ?? RETRY_AFTER;
    source.dueAt = Date.now() + Math.max(1, seconds) * 1000;
    if (error.status === 429) this.blockedUntil = source.dueAt;
    // A request that is not accepted will not be the next time either.
    if (error.status === 400) source.dueAt = Infinity;
    source.problem = { status: error.status ?? 0, message: error.message, busy: error.isBusy,
      until: source.dueAt };
    if (error.concernsAll) this.#spread(source);
    // An error of the page itself must not be mistaken for one of the server.
    if (error.status === undefined) console.error(error);
    this.changed(source, true);
  }

  /** What was not asked for just now is as old as what was, and is due at the same time. */
  #spread({ problem, dueAt }) {
    for (const other of Object.values(this.sources)) {
      if (!other.busy && !other.problem) Object.assign(other, { problem, dueAt });
    }
  }

  #keep(source) {
    this.kept.delete(source.request.path);
    this.kept.set(source.request.path, source);
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
  }

  /** A source that watches another one is due as soon as what it watches has changed. */
  #hasten() {
    for (const source of Object.values(this.sources)) {
      const seen = source.request.watch?.(this.sources);
      if (seen === undefined) continue;
      if (source.watched !== undefined && source.watched !== seen && !source.problem) {
        source.dueAt = 0;
      }
      source.watched = seen;
    }
  }
}
