// What is asked of the API, and what its refusals mean.

import assert from "node:assert/strict";
import { test } from "node:test";
import { change, queueAddress } from "../../../exporter/web/page/address.js";
import {
  canBeCredential,
  failuresRequest,
  groupRequest,
  jobRequest,
  jobsRequest,
  keyRequest,
  Refusal,
  schedulersRequest,
} from "../../../exporter/web/page/api.js";

const QUEUE = queueAddress({ queue: "a/b", prefix: "eu" });

/** @param {string} path */
function parts(path) {
  const url = new URL(path, "http://exporter/");
  return { path: url.pathname, query: Object.fromEntries(url.searchParams) };
}

test("a list is asked for with its filters, and with a window only within a group", () => {
  const search = change(QUEUE, { name: "n", text: "t & u", page: 3, window: "1h" });
  assert.deepEqual(parts(jobsRequest(search).path), {
    path: "/v1/jobs/queues/a%2Fb",
    query: {
      status: "failed",
      page: "3",
      limit: "25",
      order: "desc",
      prefix: "eu",
      name: "n",
      text: "t & u",
      brief: "true",
      detail: "true",
    },
  });
  const { query } = parts(jobsRequest(change(search, { group: "f1" })).path);
  assert.equal(query.window, "1h");
  assert.equal(query.fingerprint, "f1");
});

test("names that a browser would resolve are asked for in the query", () => {
  for (const name of [".", ".."]) {
    const { path, query } = parts(schedulersRequest(queueAddress({ queue: name })).path);
    assert.equal(path, "/v1/jobs/queues/-/schedulers");
    assert.equal(query.queue, name);
    const job = parts(jobRequest(change(queueAddress({ queue: name }), { job: name })).path);
    assert.equal(job.path, "/v1/jobs/queues/-/jobs/-");
    assert.deepEqual(job.query, { queue: name, id: name });
  }
});

test("an id that is not UTF-8 is asked for by its bytes", () => {
  const address = change(QUEUE, { job: "\\xff", job_encoded: "%FF", logs: 2 });
  assert.deepEqual(parts(jobRequest(address).path), {
    path: "/v1/jobs/queues/a%2Fb/jobs/%FF",
    query: { logsPage: "2", prefix: "eu" },
  });
});

test("half of a surrogate pair is asked for as what it is shown as", () => {
  const key = keyRequest({ ...QUEUE, job_key: "😀\ud83d!" });
  assert.equal(key.path, "v1/jobs/keys/%F0%9F%98%80%EF%BF%BD!");
});

test("of a list only what it shows is kept", () => {
  const job = { id: "1", name: "n", data: { a: 1 }, failedReason: "x".repeat(500), error: "x" };
  const answer = /** @type {any} */ ({ jobs: [job, { ...job, failedReason: null }] });
  const [first, second] = jobsRequest(QUEUE).trim?.(answer).jobs ?? [];
  assert.equal(first.failedReason?.length, 400);
  assert.equal(first.data, null);
  assert.equal(first.error, null);
  assert.equal(second.failedReason, null);
});

test("groups are read again when the number of failed jobs has changed", () => {
  const sources = /** @type {any} */ ({ jobs: { answer: { counts: { failed: 7 } } } });
  assert.equal(failuresRequest(QUEUE).watch?.(sources), 7);
  assert.equal(failuresRequest(QUEUE).watch?.({}), undefined);
});

test("one group is asked for at whatever time it failed", () => {
  const asked = parts(groupRequest(change(QUEUE, { group: "f1", window: "1h" })).path);
  assert.equal(asked.path, "/v1/jobs/queues/a%2Fb/failures");
  assert.deepEqual(asked.query, { fingerprint: "f1", limit: "1", prefix: "eu" });
});

test("a refusal concerns everything, except where too many search", () => {
  const concerns = (/** @type {number} */ status, message = "") =>
    new Refusal(status, message).concernsAll;
  assert.ok(concerns(0));
  assert.ok(concerns(500));
  assert.ok(concerns(503, "Redis cannot be reached"));
  assert.ok(!concerns(503, "Other searches are running"));
  assert.ok(!concerns(400));
  assert.ok(!concerns(404));
});

test("a credential is what a header can carry", () => {
  assert.ok(canBeCredential("abc.DEF-123~"));
  for (const text of ["", "a b", "schlüssel", "a\n", "\u200b"]) assert.ok(!canBeCredential(text));
});
