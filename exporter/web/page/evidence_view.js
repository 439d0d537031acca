// The evidence of a group's failures: when they happened, and the newest jobs, which may be gone.

import { change, jobLink, jobParts } from "./address.js";
import { html } from "./html.js";
import { badge, copyButton, foldOnPhones, textBox } from "./parts.js";
import { counted, number, short } from "./text.js";
import { clock, time } from "./times.js";

/** @import { Answers } from "./api.js" */
/** @import { Content } from "./html.js" */
/** @import { Context } from "./parts.js" */
/** @typedef {Answers["FailureGroup"]} Group */
/** @typedef {Answers["FailureEvidence"]} Evidence */

const HOUR_MS = 3_600_000;
const UNITS = new Map([
  ["s", 1],
  ["m", 60],
  ["h", 3600],
  ["d", 86_400],
  ["w", 604_800],
]);
const HEIGHT = 20;
/** Jobs that a phone shows at first. */
const FOLDED_JOBS = 1;

/**
 * How many jobs failed in a window, kept or seen, whichever are more; whole hours of the last 24.
 *
 * @param {Group} group
 * @param {string} window as in the address
 */
export function failedWithin({ count, hours }, window) {
  if (!hours) return count;
  const seconds = Number.parseInt(window, 10) * (UNITS.get(window.slice(-1)) ?? 1);
  const shown = window ? Math.ceil(seconds / 3600) + 1 : hours.length;
  return Math.max(count, total(hours.slice(-shown)));
}

/** @param {number[]} numbers */
function total(numbers) {
  return numbers.reduce((sum, each) => sum + each, 0);
}

/**
 * "12 kept, 340 seen in 24 h, 3 retries"; null where the number of jobs says it all.
 *
 * @param {Group} group
 */
export function keptAndSeen({ count, seen24h, retried24h }) {
  if (seen24h === null || (seen24h === count && !retried24h)) return null;
  const retried = retried24h ? `, ${counted(retried24h, "retry", "retries")}` : "";
  return `${number(count)} kept, ${number(seen24h)} seen in 24 h${retried}`;
}

/**
 * What each bar of the histogram says and how high it is, the oldest first.
 *
 * @param {number[]} hours
 * @param {number[]} retried
 */
export function bars(hours, retried, now = Date.now()) {
  const most = Math.max(1, ...hours.map((failed, at) => failed + (retried[at] ?? 0)));
  const height = (/** @type {number} */ value) =>
    value ? Math.max(1, Math.round((value / most) * HEIGHT)) : 0;
  return hours.map((failed, at) => {
    const again = retried[at] ?? 0;
    const begin = Math.floor(now / HOUR_MS - (hours.length - 1 - at)) * HOUR_MS;
    const text = `${clock(begin).slice(0, 5)}: ${number(failed)} failed`;
    return {
      title: again ? `${text}, ${counted(again, "retry", "retries")}` : text,
      failed: height(failed),
      retried: height(again),
    };
  });
}

/**
 * Failures by hour; null where none was seen in the last 24.
 *
 * @param {Group} group
 */
export function histogram({ hours, retriedHours, seen24h, retried24h }) {
  if (!hours || !retriedHours || !(seen24h || retried24h)) return null;
  const shown = bars(hours, retriedHours);
  const again = retried24h ? `, ${counted(retried24h, "retry", "retries")}` : "";
  const busiest = shown.reduce((one, other) =>
    other.failed + other.retried > one.failed + one.retried ? other : one,
  );
  const label = `By hour, the last 24 h: ${number(seen24h ?? 0)} failed${again}; most at ${busiest.title}`;
  const bar = (
    /** @type {(typeof shown)[number]} */ { title, failed, retried },
    /** @type {number} */ at,
  ) =>
    html`<g key=${at}>
      <title>${title}</title>
      <rect class="hour" x=${at * 5} y="0" width="5" height=${HEIGHT} />
      <rect class="failed" x=${at * 5} y=${HEIGHT - failed} width="4" height=${failed} />
      <rect class="retried" x=${at * 5} y=${Math.max(0, HEIGHT - failed - retried)} width="4"
        height=${Math.min(retried, HEIGHT - failed)} />
    </g>`;
  return html`<svg class="hours" role="img" aria-label=${label} preserveAspectRatio="none"
    viewBox=${`0 0 ${hours.length * 5} ${HEIGHT}`}>${shown.map(bar)}</svg>`;
}

/**
 * The newest jobs that were seen to fail, in full; null where none was.
 *
 * @param {Context} context
 * @param {Group} group
 */
export function evidenceList(context, { evidence, fingerprint }) {
  if (!evidence.length) return null;
  const title = evidence.length === 1 ? "The newest job" : `The newest ${evidence.length} jobs`;
  const fold = foldOnPhones(context, {
    key: `${fingerprint} evidence`,
    shown: FOLDED_JOBS,
    rows: evidence.length,
    label: (more) => `Show ${counted(more, "more job", "more jobs")}`,
  });
  return html`<div class=${`evidence ${fold.className}`}>
    <h3>${title} that ${evidence.length === 1 ? "was" : "were"} seen to fail</h3>
    ${evidence.map((job) => evidenceItem(context, job, fingerprint))}
    ${fold.button}
  </div>`;
}

/**
 * @param {Context} context
 * @param {Evidence} job
 * @param {string} fingerprint
 */
function evidenceItem(context, job, fingerprint) {
  const key = `${fingerprint} ${job.encodedId ?? job.id}`;
  const [trace] = job.stacktrace;
  return html`<article key=${key}>
    <p class="facts small">${facts(context, job)}</p>
    ${textBox(job.failedReason, `Reason of job ${job.id}`, `${key} reason`, context)}
    ${
      trace &&
      html`<details class="trace">
        <summary>Stack trace</summary>
        ${copyButton("Copy", () => trace, { "aria-label": `Copy the stack trace of job ${job.id}` })}
        ${textBox(trace, `Stack trace of job ${job.id}`, `${key} trace`, context)}
      </details>`
    }
  </article>`;
}

/**
 * @param {Context} context
 * @param {Evidence} job
 * @returns {Content}
 */
function facts({ address }, job) {
  const attempts = job.attemptsMade === null ? null : counted(job.attemptsMade, "attempt");
  const removed = "Its data are gone; this is what was seen when it failed";
  const id = job.removed
    ? html`<span>${short(job.id, 60)}</span>`
    : jobLink(change(address, jobParts(job)), {}, short(job.id, 60));
  return html`
    <span>job ${id}</span>
    ${job.name && html`<span>${short(job.name, 60)}</span>`}
    <span>${time(job.finishedOn)}</span>
    ${attempts && html`<span>after ${attempts}</span>`}
    ${job.ingestionSourceId && html`<span>source ${short(job.ingestionSourceId, 60)}</span>`}
    ${job.willBeRetried && html`<span>retried</span>`}
    ${job.removed && badge("removed", "", removed)}`;
}
