// What is shown of failures that were seen, whether their jobs are kept or not.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  bars,
  evidenceList,
  failedWithin,
  histogram,
  keptAndSeen,
} from "../../../exporter/web/page/evidence_view.js";
import { textOf } from "../../support/text_of.js";

const NOW = Date.UTC(2026, 0, 31, 14, 30);
const NOTHING = Array(24).fill(0);

/**
 * @param {Record<string, unknown>} given
 * @returns {any}
 */
function group(given = {}) {
  const total = (/** @type {number[] | undefined} */ hours) =>
    hours ? hours.reduce((sum, each) => sum + each, 0) : null;
  const hours = /** @type {number[] | undefined} */ (given.hours);
  const retriedHours = hours && (given.retriedHours ?? NOTHING);
  return {
    count: 0,
    evidence: [],
    fingerprint: "0123456789ab",
    hours: null,
    seen24h: total(hours),
    retried24h: total(/** @type {number[] | undefined} */ (retriedHours)),
    ...given,
    retriedHours: retriedHours ?? null,
  };
}

/** @param {Record<number, number>} given numbers by how many hours ago */
function hours(given) {
  return NOTHING.map((_, at) => given[23 - at] ?? 0);
}

test("kept and seen are both said where they differ", () => {
  assert.equal(keptAndSeen(group({ count: 12 })), null);
  assert.equal(keptAndSeen(group({ count: 3, hours: hours({ 0: 3 }) })), null);
  const seen = { count: 12, hours: hours({ 0: 300, 20: 40 }) };
  assert.equal(keptAndSeen(group(seen)), "12 kept, 340 seen in 24 h");
  const retriedHours = hours({ 1: 1 });
  assert.equal(
    keptAndSeen(group({ hours: hours({ 0: 1 }), retriedHours })),
    "0 kept, 1 seen in 24 h, 1 retry",
  );
});

test("a group is as large as what is kept or what was seen in the window", () => {
  const seen = group({ count: 5, hours: hours({ 0: 1, 1: 6, 5: 100 }) });
  assert.equal(failedWithin(seen, ""), 107);
  assert.equal(failedWithin(seen, "24h"), 107);
  assert.equal(failedWithin(seen, "1h"), 7);
  assert.equal(failedWithin(seen, "90m"), 7);
  assert.equal(failedWithin(seen, "7d"), 107);
  assert.equal(failedWithin(group({ count: 5 }), "1h"), 5);
});

test("each hour has a bar that says what it is of, and one failure is seen", () => {
  const shown = bars(hours({ 0: 1, 1: 1000 }), hours({ 0: 2, 2: 1 }), NOW);
  assert.equal(shown.length, 24);
  const [before, last, now] = shown.slice(-3);
  const begin = new Date(NOW - 30 * 60_000);
  const clock = `${String(begin.getHours()).padStart(2, "0")}:${String(begin.getMinutes()).padStart(2, "0")}`;
  assert.equal(now?.title, `${clock}: 1 failed, 2 retries`);
  assert.deepEqual([last?.failed, last?.retried], [20, 0]);
  assert.deepEqual([now?.failed, now?.retried], [1, 1]);
  assert.deepEqual([before?.failed, before?.retried], [0, 1]);
  assert.deepEqual(shown[0]?.failed, 0);
});

test("there is no histogram of nothing", () => {
  assert.equal(histogram(group({ count: 4 })), null);
  assert.equal(histogram(group({ hours: NOTHING })), null);
  assert.notEqual(histogram(group({ hours: hours({ 3: 1 }) })), null);
});

test("a job that is gone is no link, and says all that was seen of it", () => {
  const context = /** @type {any} */ ({ address: { queue: "mail" }, opened: new Set() });
  const job = {
    id: "7",
    name: "send",
    failedReason: "connect ECONNREFUSED",
    stacktrace: ["Error: connect ECONNREFUSED\n    at login (imap.js:1:1)"],
    attemptsMade: 2,
    finishedOn: NOW,
    willBeRetried: false,
    ingestionSourceId: "source-1",
    removed: true,
  };
  const gone = textOf(evidenceList(context, group({ evidence: [job] })));
  for (const part of ["The newest job", "job 7", "send", "after 2 attempts", "source source-1"]) {
    assert.ok(gone.includes(part), part);
  }
  assert.ok(gone.includes("removed") && gone.includes("at login (imap.js:1:1)"));
  const unknown = { ...job, name: null, attemptsMade: null, stacktrace: [], removed: null };
  const shown = textOf(evidenceList(context, group({ evidence: [unknown, job] })));
  assert.ok(shown.startsWith("The newest 2 jobs"));
  assert.equal(evidenceList(context, group()), null);
});
