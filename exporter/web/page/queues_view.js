// All queues, the ones that need somebody first.

import { link, queueAddress } from "./address.js";
import {
  badge, count, followRow, heading, loading, notice, section, table, whereabouts,
} from "./parts.js";
import { element } from "./dom.js";
import { isAtConcurrencyLimit, isRateLimited, limitEnd, mayBeRateLimited } from "./limits.js";
import { counted, number, short } from "./text.js";
import { endTime, time } from "./times.js";

const STANDS_STILL_AFTER = 5 * 60_000;

const COLUMNS = [
  { label: "Queue", kind: "name" }, { label: "State", kind: "state" },
  { label: "Failed", kind: "number" }, { label: "Waiting", kind: "number" },
  { label: "Oldest waits since", kind: "time" }, { label: "Active", kind: "number" },
  { label: "Oldest runs since", kind: "time" }, { label: "Delayed", kind: "number" },
  { label: "Paused", kind: "number" }, { label: "Completed", kind: "number" },
];

// In the order of the list: the first that fits is why a queue is where it is.
const REASONS = [
  { fits: standsStill, text: "stuck", kind: "bad",
    title: "jobs are ready, none is being worked on, the oldest waits for more than 5 minutes" },
  { fits: ({ counts }) => counts.failed > 0, text: "failed jobs", kind: "bad" },
  { fits: pausedWithJobs, text: "paused with jobs", kind: "warn" },
  { fits: ({ counts }) => counts.failed === null || counts.waiting === null,
    text: "not readable", kind: "warn", title: "counts could not be read" },
  { fits: (queue) => isRateLimited(queue) && hasReadyJobs(queue), text: "rate limited", kind: "warn",
    title: "no worker takes a job before that time" },
  { fits: (queue) => mayBeRateLimited(queue) && isIdleWithOldJobs(queue),
    text: "may be rate limited", kind: "warn",
    title: "a worker's own limiter counts jobs until then; its maximum is not stored in Redis: "
      + "either it is reached, or no worker takes jobs" },
  { fits: ({ oldestWaiting, counts }) => oldestWaiting !== null
    || counts.waiting + counts.prioritized > 0, text: "jobs wait", kind: "" },
  { fits: ({ counts }) => counts.active > 0, text: "working", kind: "good" },
  { fits: () => true, text: "idle", kind: "" },
];

function standsStill(queue) {
  return isIdleWithOldJobs(queue) && !isRateLimited(queue) && !mayBeRateLimited(queue);
}

function hasReadyJobs({ counts }) {
  return counts.waiting + counts.prioritized > 0;
}

function isIdleWithOldJobs({ counts, oldestWaiting }) {
  return hasReadyJobs({ counts }) && counts.active === 0
    && oldestWaiting !== null && Date.now() - oldestWaiting > STANDS_STILL_AFTER;
}

function pausedWithJobs({ paused, counts }) {
  return paused && counts.paused + counts.waiting + counts.prioritized > 0;
}

function judged(queue) {
  const counts = queue.counts ?? {};
  // An old answer may lack a part: that is "not known", never zero.
  const known = { ...queue, oldestWaiting: queue.oldestWaiting ?? null, counts: {
    failed: null, waiting: null, active: null, ...counts } };
  return { ...known, rank: REASONS.findIndex(({ fits }) => fits(known)) };
}

/** Worst first: by reason, then most failed, then the longest wait, then by name. */
function worstFirst(a, b) {
  const failed = a.rank === 1 ? b.counts.failed - a.counts.failed : 0;
  const waits = (queue) => queue.oldestWaiting ?? Infinity;
  const longest = waits(a) === waits(b) ? 0 : waits(a) - waits(b);
  return a.rank - b.rank || failed || longest || (a.name < b.name ? -1 : 1);
}

export function queuesView({ sources: { queues: source } }) {
  const title = heading("All queues");
  if (!source.answer) return [title, source.problem ? null : loading("the queues")];
  const queues = source.answer.queues.map(judged).sort(worstFirst);
  if (!queues.length) {
    return [title, unavailable(source.answer.unavailable ?? []),
      element("p", { class: "quiet" }, "There are no queues yet.")];
  }
  const rows = queues.map(row);
  return [title, unavailable(source.answer.unavailable ?? []), tiles(queues, source.problem),
    section(source, { id: "queues-section", class: "flush" },
      table({ id: "queues", caption: "Queues, worst first", columns: COLUMNS, rows }))];
}

function tiles(queues, old) {
  const still = queues.filter(standsStill).length;
  const failing = queues.filter(({ counts }) => counts.failed > 0);
  const failed = failing.reduce((sum, { counts }) => sum + counts.failed, 0);
  const paused = queues.filter(({ paused: isPaused }) => isPaused).length;
  return element("ul", { id: "tiles", class: old ? "tiles stale" : "tiles" },
    tile("tile-still", still, still === 1 ? "queue is stuck" : "queues are stuck",
      still && "bad"),
    tile("tile-failing", failing.length, `${failing.length === 1 ? "queue has" : "queues have"
    } failed jobs`, failing.length && "bad", failed ? counted(failed, "job") : ""),
    tile("tile-paused", paused, paused === 1 ? "queue is paused" : "queues are paused",
      paused && "warn"),
    tile("tile-queues", queues.length, queues.length === 1 ? "queue in all" : "queues in all"));
}

function tile(id, value, text, kind, more = "") {
  return element("li", { id, class: kind || null }, element("strong", {}, number(value)),
    " ", text, more && element("span", { class: "muted" }, ` · ${more}`));
}

/** What could not be asked is not there, and not "no queues". */
function unavailable(targets) {
  return targets.length ? notice("warn", element("strong", {}, "Not shown: "),
    targets.map(({ target, message }) => `${target} (${message})`).join(", ")) : null;
}

function row(queue) {
  const { counts, name, prefix, target } = queue;
  const to = (status) => statusLink(queue, status);
  return { key: `${target ?? ""} ${prefix ?? ""} ${name}`, onclick: followRow, className: "follow", cells: [
    [link(queueAddress({ queue: name, prefix, target }), { class: "queue" }, short(name)),
      whereabouts(queue)],
    state(queue),
    to("failed"), [to("waiting"), prioritized(queue)], time(queue.oldestWaiting), active(queue),
    time(queue.oldestActive), delayed(queue), paused(queue), to("completed"),
  ] };
}

function statusLink({ name, prefix, target, counts }, status) {
  const value = counts[status];
  if (!value) return element("span", { class: "none" }, count(value));
  return link(queueAddress({ queue: name, prefix, target }, status), {
    class: status === "failed" ? "bad" : null,
    "aria-label": `${number(value)} ${status} in ${name}` }, number(value));
}

function state(queue) {
  const { text, kind, title } = REASONS[queue.rank];
  const end = text.endsWith("rate limited") ? limitEnd(queue) : null;
  return [badge(text, kind, title),
    end && element("span", { class: "muted small" }, " until ", endTime(end))];
}

function active(queue) {
  const limit = queue.limits?.concurrency ?? null;
  return [statusLink(queue, "active"), limit !== null && element("span", {
    class: isAtConcurrencyLimit(queue) ? "full" : "muted",
    title: "the concurrency limit of the queue, for all workers together" },
  ` of ${number(limit)}`)];
}

function prioritized(queue) {
  const value = queue.counts.prioritized;
  if (value === 0 || value === undefined) return null;
  return element("span", { class: "muted", title: "with a priority" }, " + ",
    statusLink(queue, "prioritized"));
}

function delayed(queue) {
  const next = queue.counts.delayed ? queue.nextDelayed : null;
  return [statusLink(queue, "delayed"),
    next && element("span", { class: "muted small" }, next > Date.now() ? " next " : " due ",
      time(next))];
}

function paused(queue) {
  const jobs = statusLink(queue, "paused");
  if (queue.paused === null) return element("span", { class: "unknown",
    title: "could not be read" }, "?");
  return queue.paused ? ["yes ", queue.counts.paused ? jobs : null, prioritized(queue)]
    : element("span", { class: "none" }, queue.counts.paused ? jobs : "no");
}
