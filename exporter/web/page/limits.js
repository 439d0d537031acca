// The concurrency and rate limits of a queue, from the API's `limits`.

import { notice } from "./parts.js";
import { element } from "./dom.js";
import { counted, number } from "./text.js";
import { duration, endTime } from "./times.js";

export function isRateLimited({ limits }) {
  return (limits?.rateLimitedUntil ?? 0) > Date.now();
}

/** A worker's own limiter: its maximum is not stored in Redis, so it may or may not be reached. */
export function mayBeRateLimited({ limits }) {
  return (limits?.rateWindowEnd ?? 0) > Date.now();
}

export function limitEnd({ limits }) {
  return limits?.rateLimitedUntil ?? limits?.rateWindowEnd ?? null;
}

export function isAtConcurrencyLimit({ limits, counts }) {
  const limit = limits?.concurrency ?? null;
  return limit !== null && counts.active !== null && counts.active >= limit;
}

/** Notices on the limits of one queue; empty if it has none. */
export function limitNotices(queue) {
  const { limits, counts } = queue;
  if (!limits) return null;
  const configured = [
    limits.rateMax !== null && `Rate limit: ${counted(limits.rateMax, "job")}`
      + (limits.rateDuration === null ? "." : ` in ${duration(limits.rateDuration)}.`),
    limits.concurrency !== null
      && `Concurrency limit: ${counts.active === null ? "?" : number(counts.active)} of ${number(limits.concurrency)
      } active.`,
  ].filter(Boolean);
  return element("div", { id: "limits", class: "limits" },
    isRateLimited(queue) && notice("warn", element("strong", {}, "Rate limited until "),
      endTime(limits.rateLimitedUntil), ". No worker takes a job before then."),
    mayBeRateLimited(queue) && element("p", { class: "muted" }, "A worker's own rate limit counts ",
      "jobs until ", endTime(limits.rateWindowEnd), ". Its maximum is not stored in Redis, so it ",
      "is unknown whether it is reached."),
    isAtConcurrencyLimit(queue) && counts.waiting + counts.prioritized > 0
      && notice("warn", element("strong", {}, "Concurrency limit reached. "),
        "More workers do not help: the queue allows ", number(limits.concurrency),
        " active at once."),
    configured.length > 0 && element("p", { class: "muted small" }, configured.join(" ")));
}
