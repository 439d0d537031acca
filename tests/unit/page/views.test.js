// Texts of the views that depend on what the API says.

import assert from "node:assert/strict";
import { test } from "node:test";
import { summary } from "../../../exporter/web/page/failures_view.js";
import {
  attempts,
  progress,
  stuckNotices,
  traceMessage,
} from "../../../exporter/web/page/job_view.js";
import { range } from "../../../exporter/web/page/jobs_view.js";
import { textOf } from "../../support/text_of.js";

test("a list says which part of it is shown, as far as it is known", () => {
  const shown = (
    /** @type {number} */ page,
    /** @type {number} */ listed,
    /** @type {number | null} */ totalJobs,
    rest = {},
  ) => {
    const jobs = Array.from({ length: listed }, () => ({}));
    const pagination = { currentPage: page, totalPages: null, totalJobs, limit: 25 };
    const answer = /** @type {any} */ ({ jobs, pagination, ...rest });
    return range({ page }, { answer, outdated: false });
  };
  assert.equal(shown(1, 25, 812), "1 to 25 of 812");
  assert.equal(shown(2, 25, 1812), "26 to 50 of 1,812");
  assert.equal(shown(41, 12, null), "1,001 to 1,012");
  assert.equal(shown(1, 5, 10, { missing: 5 }), "1 to 10 of 10");
  assert.equal(shown(9, 0, 30), "none of 30");
  assert.equal(shown(1, 0, 0), "");
  assert.equal(range({ page: 1 }, { answer: null, outdated: false }), "");
});

test("groups say how many jobs they are of, and what was not looked at", () => {
  const answer = /** @type {any} */ ({ seen: 5000, complete: true, failed: 1, groupsTotal: 1 });
  const groups = /** @type {any[]} */ ([{}]);
  assert.equal(summary({ ...answer, groups }), "1 failed job in 1 group.");
  assert.equal(
    summary({ ...answer, groups, failed: 9000, groupsTotal: 80, complete: false }),
    "9,000 failed jobs in 80 groups, the 1 largest listed; saw only the newest 5,000, not the older ones.",
  );
  assert.equal(
    summary({ ...answer, groups, failed: 0, willBeRetried: 3 }),
    "0 failed jobs and 3 that will be retried in 1 group.",
  );
});

test("attempts and progress are shown whatever an application writes there", () => {
  assert.equal(attempts({ attemptsMade: 3, options: { attempts: 5 } }), "3 of 5");
  for (const options of [null, {}, "x", 7, { attempts: "<b>many</b>" }]) {
    assert.equal(attempts({ attemptsMade: 3, options }), "3");
  }
  assert.equal(textOf(progress(0)), "none");
  assert.equal(textOf(progress(null)), "none");
  assert.equal(textOf(progress(42)), "42 %");
  assert.equal(textOf(progress(4200)), "4200");
  assert.equal(textOf(progress({ done: 1 })), '{"done":1}');
});

test("the message of a stack trace is its first line, and in Python its last", () => {
  assert.equal(traceMessage("\nError: x\n    at y"), "Error: x");
  const python = 'Traceback (most recent call last):\n  File "x"\nValueError: y\n';
  assert.equal(traceMessage(python), "ValueError: y");
});

test("a parent that waits for ever says for what", () => {
  const child = (/** @type {any} */ outcome, /** @type {any} */ state) => ({
    queue: "q",
    id: "1",
    outcome,
    state,
  });
  assert.equal(
    textOf(stuckNotices([child("unprocessed", "failed"), child("unprocessed", "removed")])),
    "1 child failed. This job waits until it is retried." +
      "1 child was removed. This job will never continue by itself.",
  );
  const two = [child("unprocessed", "failed"), child("unprocessed", "failed")];
  assert.equal(
    textOf(stuckNotices(two)),
    "2 children failed. This job waits until they are retried.",
  );
  const others = [child("failed", undefined), child("unprocessed", "active")];
  assert.equal(textOf(stuckNotices(others)), "");
});
