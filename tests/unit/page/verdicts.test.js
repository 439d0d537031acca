// What the counts of a queue mean, and in which order queues are listed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { judge, worstFirst } from "../../../exporter/web/page/verdicts.js";
import { queueWith } from "../../support/queues.js";

const HOUR = 3_600_000;
const now = Date.now();
const old = { oldestWaiting: now - HOUR };
const recent = { oldestWaiting: now };

/** @param {Parameters<typeof queueWith>} queue */
function verdict(...queue) {
  return judge(queueWith(...queue)).verdict.text;
}

test("a queue is stuck if jobs are ready, old, and none is active", () => {
  assert.equal(verdict({ waiting: 1 }, old), "stuck");
  assert.equal(verdict({ prioritized: 1 }, old), "stuck");
  assert.equal(verdict({ waiting: 1, failed: 9 }, old), "stuck");
  assert.equal(verdict({ waiting: 1, active: 1 }, old), "jobs wait");
  assert.equal(verdict({ waiting: 1 }, recent), "jobs wait");
  assert.equal(verdict({ waiting: 1 }), "jobs wait");
  assert.equal(verdict({ delayed: 1 }, old), "jobs wait");
});

test("a queue with a rate limit is not stuck while it lasts", () => {
  const limited = { ...old, limits: { rateLimitedUntil: now + HOUR } };
  assert.equal(verdict({ waiting: 1 }, limited), "rate limited");
  assert.equal(
    judge(queueWith({ waiting: 1 }, limited)).verdict.until?.(judge(queueWith({}, limited))),
    now + HOUR,
  );
  assert.equal(verdict({}, { limits: limited.limits }), "idle");
  const over = { ...old, limits: { rateLimitedUntil: now - HOUR } };
  assert.equal(verdict({ waiting: 1 }, over), "stuck");
  const own = { ...old, limits: { rateWindowEnd: now + HOUR } };
  assert.equal(verdict({ waiting: 1 }, own), "may be rate limited");
  assert.equal(verdict({ waiting: 1, active: 1 }, own), "jobs wait");
});

test("failed jobs come before a pause, and a pause only with jobs", () => {
  assert.equal(verdict({ failed: 1 }, { paused: true }), "failed jobs");
  assert.equal(verdict({ paused: 1 }, { paused: true }), "paused with jobs");
  assert.equal(verdict({ prioritized: 1 }, { paused: true }), "paused with jobs");
  assert.equal(verdict({ completed: 1 }, { paused: true }), "idle");
  assert.equal(verdict({ paused: 1 }, { paused: null }), "idle");
  assert.equal(verdict({ active: 2 }), "working");
});

test("a count that could not be read is never taken as none", () => {
  assert.equal(verdict({ failed: null }), "not readable");
  assert.equal(verdict({ waiting: null }), "not readable");
  const { counts, ...rest } = queueWith();
  const lacking = /** @type {any} */ ({ ...rest, counts: undefined });
  assert.equal(judge(lacking).verdict.text, "not readable");
  assert.equal(verdict({ waiting: 1, active: null }, old), "jobs wait");
});

test("the worst queue is the first: by verdict, failed jobs, the longest wait, the name", () => {
  const queues = [
    queueWith({}, { name: "idle-b" }),
    queueWith({}, { name: "idle-a" }),
    queueWith({ waiting: 1 }, { name: "waits", ...recent }),
    queueWith({ failed: 2 }, { name: "fails-2" }),
    queueWith({ failed: 30 }, { name: "fails-30" }),
    queueWith({ failed: 2 }, { name: "fails-2-and-waits", ...recent }),
    queueWith({ waiting: 1 }, { name: "stuck", ...old }),
    queueWith({ waiting: 1 }, { name: "stuck-longer", oldestWaiting: now - 2 * HOUR }),
    queueWith({ waiting: null }, { name: "unknown" }),
  ];
  const names = queues
    .map(judge)
    .sort(worstFirst)
    .map(({ name }) => name);
  assert.deepEqual(names, [
    "stuck-longer",
    "stuck",
    "fails-30",
    "fails-2-and-waits",
    "fails-2",
    "unknown",
    "waits",
    "idle-a",
    "idle-b",
  ]);
});
