// What the counts of a queue mean, and which queues need attention first.

import { isRateLimited, limitEnd, mayBeRateLimited } from "./limits.js";

/** @import { Answers } from "./api.js" */

const STUCK_AFTER_MS = 5 * 60_000;
const UNKNOWN = { failed: null, waiting: null, active: null };

/**
 * @typedef {object} Verdict
 * @property {string} text
 * @property {"bad" | "warn" | "good" | ""} kind
 * @property {string} [title] what it means, where the text does not say
 * @property {(queue: Queue) => boolean} fits
 * @property {(queue: Queue) => number | null} [until] when it ends, in epoch milliseconds
 */

/**
 * @typedef {Answers["Queue"] & {oldestWaiting: number | null}} Queue
 * @typedef {Queue & {verdict: Verdict, rank: number}} JudgedQueue the lower its rank, the worse
 */

/**
 * In the order of the list of queues: the first one that applies determines a queue's position.
 *
 * @type {Verdict[]}
 */
const VERDICTS = [
  {
    fits: isStuck,
    text: "stuck",
    kind: "bad",
    title: "jobs are ready, none is being worked on, the oldest waits for more than 5 minutes",
  },
  { fits: hasFailedJobs, text: "failed jobs", kind: "bad" },
  { fits: isPausedWithJobs, text: "paused with jobs", kind: "warn" },
  {
    fits: ({ counts }) => counts.failed === null || counts.waiting === null,
    text: "not readable",
    kind: "warn",
    title: "counts could not be read",
  },
  {
    fits: (queue) => isRateLimited(queue) && readyJobs(queue) > 0,
    text: "rate limited",
    kind: "warn",
    title: "no worker takes a job before that time",
    until: limitEnd,
  },
  {
    fits: (queue) => mayBeRateLimited(queue) && isIdleWithOldJobs(queue),
    text: "may be rate limited",
    kind: "warn",
    title:
      "a worker's own limiter counts jobs until then; its maximum is not stored in Redis: " +
      "either it is reached, or no worker takes jobs",
    until: limitEnd,
  },
  {
    fits: (queue) => queue.oldestWaiting !== null || readyJobs(queue) > 0,
    text: "jobs wait",
    kind: "",
  },
  { fits: ({ counts }) => (counts.active ?? 0) > 0, text: "working", kind: "good" },
  { fits: () => true, text: "idle", kind: "" },
];

/** @param {Queue} queue */
function readyJobs({ counts }) {
  return (counts.waiting ?? 0) + (counts.prioritized ?? 0);
}

/** @param {Queue} queue */
export function hasFailedJobs({ counts }) {
  return (counts.failed ?? 0) > 0;
}

/** @param {Queue} queue */
function isIdleWithOldJobs(queue) {
  const { counts, oldestWaiting } = queue;
  const isOld = oldestWaiting !== null && Date.now() - oldestWaiting > STUCK_AFTER_MS;
  return readyJobs(queue) > 0 && counts.active === 0 && isOld;
}

/** @param {Queue} queue */
export function isStuck(queue) {
  return isIdleWithOldJobs(queue) && !isRateLimited(queue) && !mayBeRateLimited(queue);
}

/** @param {Queue} queue */
function isPausedWithJobs(queue) {
  return queue.paused === true && (queue.counts.paused ?? 0) + readyJobs(queue) > 0;
}

/**
 * A queue with its verdict. Values that an answer lacks are unknown, never 0.
 *
 * @param {Answers["Queue"]} queue
 * @returns {JudgedQueue}
 */
export function judge(queue) {
  const counts = { ...UNKNOWN, ...queue.counts };
  const known = { ...queue, counts, oldestWaiting: queue.oldestWaiting ?? null };
  const rank = VERDICTS.findIndex(({ fits }) => fits(known));
  return { ...known, rank, verdict: VERDICTS[rank] };
}

/**
 * By verdict, then most failed, then the longest wait, then by name.
 *
 * @param {JudgedQueue} a
 * @param {JudgedQueue} b
 */
export function worstFirst(a, b) {
  if (a.rank !== b.rank) return a.rank - b.rank;
  const failed =
    a.verdict.fits === hasFailedJobs ? (b.counts.failed ?? 0) - (a.counts.failed ?? 0) : 0;
  const [since, other] = [a, b].map((queue) => queue.oldestWaiting ?? Number.MAX_VALUE);
  return failed || since - other || (a.name < b.name ? -1 : 1);
}
