// Notices on the concurrency and rate limits of a queue.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  isAtConcurrencyLimit,
  isRateLimited,
  limitEnd,
  limitNotices,
  mayBeRateLimited,
} from "../../../exporter/web/page/limits.js";
import { absolute } from "../../../exporter/web/page/times.js";
import { queueWith } from "../../support/queues.js";
import { textOf } from "../../support/text_of.js";

const DAY = 24 * 3_600_000;
const until = Date.now() + 2 * DAY;

test("a limit counts as long as it lasts", () => {
  const limited = queueWith({}, { limits: { rateLimitedUntil: until } });
  assert.ok(isRateLimited(limited));
  assert.ok(!mayBeRateLimited(limited));
  assert.equal(limitEnd(limited), until);
  assert.ok(!isRateLimited(queueWith({}, { limits: { rateLimitedUntil: until - 4 * DAY } })));
  const own = queueWith({}, { limits: { rateWindowEnd: until } });
  assert.ok(mayBeRateLimited(own));
  assert.equal(limitEnd(own), until);
  assert.equal(limitEnd(queueWith()), null);
});

test("a concurrency limit is reached by as many active jobs, and never by an unknown number", () => {
  const limits = { concurrency: 2 };
  assert.ok(isAtConcurrencyLimit(queueWith({ active: 2 }, { limits })));
  assert.ok(!isAtConcurrencyLimit(queueWith({ active: 1 }, { limits })));
  assert.ok(!isAtConcurrencyLimit(queueWith({ active: null }, { limits })));
  assert.ok(!isAtConcurrencyLimit(queueWith({ active: 2 })));
});

test("a notice says what is limited, until when, and what would not help", () => {
  const limits = { rateMax: 1, rateDuration: 90_000, rateLimitedUntil: until };
  assert.equal(
    textOf(limitNotices(queueWith({}, { limits }))),
    `Rate limited until ${absolute(until)}. No worker takes a job before then.` +
      "Rate limit: 1 job in 1 min 30 s.",
  );
  assert.equal(
    textOf(limitNotices(queueWith({ active: 3, waiting: 1 }, { limits: { concurrency: 3 } }))),
    "Concurrency limit reached. More workers do not help: the queue allows 3 active at once." +
      "Concurrency limit: 3 of 3 active.",
  );
  assert.equal(
    textOf(limitNotices(queueWith({ active: 3 }, { limits: { concurrency: 3 } }))),
    "Concurrency limit: 3 of 3 active.",
  );
  assert.equal(
    textOf(limitNotices(queueWith({ active: null }, { limits: { concurrency: 3, rateMax: 2 } }))),
    "Rate limit: 2 jobs. Concurrency limit: ? of 3 active.",
  );
  assert.match(
    textOf(limitNotices(queueWith({}, { limits: { rateWindowEnd: until } }))),
    /^A worker's own rate limit counts jobs until .+ so it is unknown whether it is reached\.$/,
  );
  assert.equal(textOf(limitNotices(queueWith())), "");
  assert.equal(limitNotices({ ...queueWith(), limits: undefined }), null);
});
