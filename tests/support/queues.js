// Queues and sources for tests of the page, as the API and the loader give them.

/** @typedef {import("openapi").components["schemas"]} Answers */

/** @type {Answers["Counts"]} */
const EMPTY = {
  active: 0,
  completed: 0,
  failed: 0,
  delayed: 0,
  waiting: 0,
  paused: 0,
  prioritized: 0,
  "waiting-children": 0,
};

/** @type {Answers["Limits"]} */
const UNLIMITED = {
  concurrency: null,
  rateMax: null,
  rateDuration: null,
  rateLimitedUntil: null,
  rateWindowEnd: null,
};

/**
 * A queue that has nothing, except what is given.
 *
 * @param {Partial<Answers["Counts"]>} counts
 * @param {Omit<Partial<Answers["Queue"]>, "limits"> & {limits?: Partial<Answers["Limits"]>}} rest
 * @returns {Answers["Queue"]}
 */
export function queueWith(counts = {}, { limits, ...rest } = {}) {
  return {
    name: "q",
    paused: false,
    oldestWaiting: null,
    ...rest,
    counts: { ...EMPTY, ...counts },
    limits: { ...UNLIMITED, ...limits },
  };
}

/**
 * What is known of a request.
 *
 * @param {Partial<import("../../exporter/web/page/loader.js").Source<any>>} state
 * @returns {import("../../exporter/web/page/loader.js").Source<any>}
 */
export function sourceWith(state) {
  return {
    request: { path: "x", every: 10, series: "x" },
    answer: null,
    text: "",
    readAt: 0,
    dueAt: 0,
    problem: null,
    busy: false,
    outdated: false,
    ...state,
  };
}
