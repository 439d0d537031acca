// All queues; those that need attention come first.

import { link, queueAddress } from "./address.js";
import { html } from "./html.js";
import { isAtConcurrencyLimit } from "./limits.js";
import {
  badge,
  count,
  followRow,
  heading,
  loading,
  none,
  notice,
  section,
  table,
  unreadable,
  whereabouts,
} from "./parts.js";
import { counted, number, short } from "./text.js";
import { endTime, lasting, time } from "./times.js";
import { hasFailedJobs, isStuck, judge, worstFirst } from "./verdicts.js";

/** @import { Status } from "./address.js" */
/** @import { Answers } from "./api.js" */
/** @import { Context } from "./parts.js" */
/** @import { JudgedQueue } from "./verdicts.js" */

const COLUMNS = [
  { label: "Queue", kind: "name" },
  { label: "State", kind: "state" },
  { label: "Failed", kind: "number" },
  { label: "Waiting", kind: "number" },
  { label: "Oldest waiting", kind: "time" },
  { label: "Active", kind: "number" },
  { label: "Longest running", kind: "time" },
  { label: "Delayed", kind: "number" },
  { label: "Paused", kind: "number" },
  { label: "Completed", kind: "number" },
];

/** @param {Context} context */
export function queuesView({ sources: { queues: source } }) {
  const title = heading("All queues");
  if (!source?.answer) return [title, !source?.problem && loading("the queues")];
  const queues = source.answer.queues.map(judge).sort(worstFirst);
  return html`
    ${title}
    ${unavailable(source.answer.unavailable ?? [])}
    ${!queues.length && html`<p class="quiet">There are no queues yet.</p>`}
    ${queues.length > 0 && tiles(queues, source.problem !== null)}
    ${queues.length > 0 && section(source, { id: "queues-section", class: "flush" }, list(queues))}`;
}

/** @param {JudgedQueue[]} queues */
function list(queues) {
  const rows = queues.map(row);
  return table({ id: "queues", caption: "Queues, worst first", columns: COLUMNS, rows });
}

/**
 * @param {JudgedQueue[]} queues
 * @param {boolean} isOld
 */
function tiles(queues, isOld) {
  const stuck = queues.filter(isStuck).length;
  const failing = queues.filter(hasFailedJobs).length;
  const failed = queues.reduce((sum, { counts }) => sum + (counts.failed ?? 0), 0);
  const paused = queues.filter((queue) => queue.paused).length;
  return html`<ul id="tiles" class=${isOld ? "tiles stale" : "tiles"}>
    ${tile("tile-still", stuck, "bad", stuck === 1 ? "queue is stuck" : "queues are stuck")}
    ${tile(
      "tile-failing",
      failing,
      "bad",
      failing === 1 ? "queue has failed jobs" : "queues have failed jobs",
      failed ? counted(failed, "job") : "",
    )}
    ${tile("tile-paused", paused, "warn", paused === 1 ? "queue is paused" : "queues are paused")}
    ${tile("tile-queues", queues.length, "", queues.length === 1 ? "queue in all" : "queues in all")}
  </ul>`;
}

/**
 * @param {string} id
 * @param {number} value
 * @param {string} kind if there are any
 * @param {string} text
 */
function tile(id, value, kind, text, more = "") {
  return html`<li id=${id} class=${value && kind ? kind : undefined}>
    <strong>${number(value)}</strong> ${text}
    ${more && html`<span class="muted"> · ${more}</span>`}
  </li>`;
}

/**
 * Targets that could not be read are reported as missing, not as having no queues.
 *
 * @param {NonNullable<Answers["Queues"]["unavailable"]>} targets
 */
function unavailable(targets) {
  if (!targets.length) return null;
  const named = targets.map(({ target, message }) => `${target} (${message})`).join(", ");
  return notice("warn", html`<strong>Not shown: </strong>${named}`);
}

/** @param {JudgedQueue} queue */
function row(queue) {
  const { name, prefix, target } = queue;
  const address = queueAddress({ queue: name, prefix, target });
  return {
    key: `${target ?? ""} ${prefix ?? ""} ${name}`,
    className: "follow",
    onclick: followRow,
    cells: [
      [link(address, { class: "queue" }, short(name)), whereabouts(queue)],
      state(queue),
      statusLink(queue, "failed"),
      [statusLink(queue, "waiting"), prioritized(queue)],
      lasting(queue.oldestWaiting),
      active(queue),
      lasting(queue.oldestActive),
      delayed(queue),
      paused(queue),
      statusLink(queue, "completed"),
    ],
  };
}

/**
 * @param {JudgedQueue} queue
 * @param {Status} status
 */
function statusLink({ name, prefix, target, counts }, status) {
  const value = counts[status];
  if (!value) return none(count(value));
  const attributes = {
    class: status === "failed" ? "bad" : undefined,
    "aria-label": `${number(value)} ${status} in ${name}`,
  };
  return link(queueAddress({ queue: name, prefix, target }, status), attributes, number(value));
}

/** @param {JudgedQueue} queue */
function state(queue) {
  const { text, kind, title, until } = queue.verdict;
  const end = until?.(queue);
  return [
    badge(text, kind, title),
    end && html`<span class="muted small"> until ${endTime(end)}</span>`,
  ];
}

/** @param {JudgedQueue} queue */
function active(queue) {
  const limit = queue.limits?.concurrency ?? null;
  const kind = isAtConcurrencyLimit(queue) ? "full" : "muted";
  const title = "the concurrency limit of the queue, for all workers together";
  return [
    statusLink(queue, "active"),
    limit !== null && html`<span class=${kind} title=${title}> of ${number(limit)}</span>`,
  ];
}

/** @param {JudgedQueue} queue */
function prioritized(queue) {
  const value = queue.counts.prioritized;
  if (value === 0 || value === undefined) return null;
  return html`<span class="muted" title="with a priority"> + ${statusLink(queue, "prioritized")}</span>`;
}

/** @param {JudgedQueue} queue */
function delayed(queue) {
  const next = queue.counts.delayed ? queue.nextDelayed : null;
  const when = next && next > Date.now() ? " next " : " due ";
  return [
    statusLink(queue, "delayed"),
    next && html`<span class="muted small">${when}${time(next)}</span>`,
  ];
}

/** @param {JudgedQueue} queue */
function paused(queue) {
  const jobs = queue.counts.paused ? statusLink(queue, "paused") : null;
  if (queue.paused === null) return unreadable();
  return queue.paused ? ["yes ", jobs, prioritized(queue)] : none(jobs ?? "no");
}
