// The concurrency and rate limits of a queue, from the API's `limits`.

import { html } from "./html.js";
import { notice } from "./parts.js";
import { counted, number } from "./text.js";
import { duration, endTime } from "./times.js";

/** @import { Answers } from "./api.js" */
/** @typedef {Pick<Answers["Queue"], "limits" | "counts">} Limited A queue, with or without limits. */

/** @param {Limited} queue */
export function isRateLimited({ limits }) {
  return (limits?.rateLimitedUntil ?? 0) > Date.now();
}

/**
 * A worker's own limiter: its maximum is not stored in Redis, so it may or may not be reached.
 *
 * @param {Limited} queue
 */
export function mayBeRateLimited({ limits }) {
  return (limits?.rateWindowEnd ?? 0) > Date.now();
}

/** @param {Limited} queue */
export function limitEnd({ limits }) {
  return limits?.rateLimitedUntil ?? limits?.rateWindowEnd ?? null;
}

/** @param {Limited} queue */
export function isAtConcurrencyLimit({ limits, counts }) {
  const limit = limits?.concurrency ?? null;
  return limit !== null && counts.active !== null && counts.active >= limit;
}

/**
 * Notices on the limits of one queue; empty if it has none.
 *
 * @param {Limited} queue
 */
export function limitNotices(queue) {
  const { limits, counts } = queue;
  if (!limits) return null;
  const ready = (counts.waiting ?? 0) + (counts.prioritized ?? 0);
  const configured = configuredLimits(limits, counts);
  return html`<div id="limits" class="limits">
    ${
      isRateLimited(queue) &&
      notice(
        "warn",
        html`<strong>Rate limited until </strong>${endTime(limits.rateLimitedUntil)}.${" "}
          No worker takes a job before then.`,
      )
    }
    ${
      mayBeRateLimited(queue) &&
      html`<p class="muted">
        A worker's own rate limit counts jobs until ${endTime(limits.rateWindowEnd)}. Its maximum is
        not stored in Redis, so it is unknown whether it is reached.
      </p>`
    }
    ${
      isAtConcurrencyLimit(queue) &&
      ready > 0 &&
      notice(
        "warn",
        html`<strong>Concurrency limit reached. </strong>
          More workers do not help: the queue allows ${number(limits.concurrency ?? 0)} active at once.`,
      )
    }
    ${configured.length > 0 && html`<p class="muted small">${configured.join(" ")}</p>`}
  </div>`;
}

/**
 * What the limits are set to, a sentence each.
 *
 * @param {Answers["Limits"]} limits
 * @param {Answers["Counts"]} counts
 */
function configuredLimits({ concurrency, rateMax, rateDuration }, { active }) {
  const sentences = [];
  if (rateMax !== null) {
    const span = rateDuration === null ? "" : ` in ${duration(rateDuration)}`;
    sentences.push(`Rate limit: ${counted(rateMax, "job")}${span}.`);
  }
  if (concurrency !== null) {
    const used = active === null ? "?" : number(active);
    sentences.push(`Concurrency limit: ${used} of ${number(concurrency)} active.`);
  }
  return sentences;
}
