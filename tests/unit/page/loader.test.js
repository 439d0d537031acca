// How answers are fetched and kept fresh, from a server that answers as each test says.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { keepCredential } from "../../../exporter/web/page/api.js";
import { Loader } from "../../../exporter/web/page/loader.js";

/** @typedef {import("../../../exporter/web/page/loader.js").Source<any>} Source */
/** @typedef {{status?: number, headers?: Record<string, string>, body?: unknown}} Reply */

/** @type {(path: string) => Reply} */
let reply;
/** @type {string[]} paths, in the order in which they were asked for */
let asked = [];
const server = createServer((request, response) => {
  const path = String(request.url);
  asked.push(path);
  const { status = 200, headers = {}, body = {} } = reply(path);
  response.writeHead(status, headers).end(typeof body === "string" ? body : JSON.stringify(body));
});

before(async () => {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(null)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const fetchAbsolute = globalThis.fetch;
  // What a browser does by itself: addresses are relative to the page's.
  globalThis.fetch = (path, options) =>
    fetchAbsolute(new URL(String(path), `http://127.0.0.1:${port}/`), options);
  globalThis.document = /** @type {any} */ ({ hidden: false });
  keepCredential("a-key-of-some-length");
});

beforeEach(() => {
  asked = [];
  reply = () => ({});
});

after(() => {
  server.closeAllConnections();
  server.close();
});

/** A loader, and a way to wait until an attempt has ended. */
function observed() {
  /** @type {{source: Source, news: boolean}[]} */
  const attempts = [];
  /** @type {((attempt: {source: Source, news: boolean}) => void)[]} */
  const waiting = [];
  const loader = new Loader((source, news) => {
    const next = waiting.shift();
    if (next) next({ source, news });
    else attempts.push({ source, news });
  });
  /** @returns {Promise<{source: Source, news: boolean}>} */
  const attempt = async () => attempts.shift() ?? new Promise((resolve) => waiting.push(resolve));
  return { loader, attempt };
}

/** @param {Loader} loader */
function isAsking(loader) {
  return loader.all.some(({ busy }) => busy);
}

/**
 * @param {string} path
 * @param {object} rest
 */
function request(path, rest = {}) {
  return { path, every: 3600, series: path, ...rest };
}

test("an answer is news once, and not while it stays the same", async () => {
  const { loader, attempt } = observed();
  reply = () => ({ body: { a: 1 } });
  loader.open({ jobs: request("a") });
  const first = await attempt();
  assert.deepEqual(first.source.answer, { a: 1 });
  assert.ok(first.news);
  loader.refresh();
  assert.ok(!(await attempt()).news);
  reply = () => ({ body: { a: 2 } });
  loader.refresh();
  assert.ok((await attempt()).news);
  loader.tick();
  assert.ok(!isAsking(loader)); // the next one is due in an hour
});

test("what fails keeps its answer, with the reason, and recovers", async () => {
  const { loader, attempt } = observed();
  reply = () => ({ body: { a: 1 } });
  loader.open({ jobs: request("a") });
  await attempt();
  reply = () => ({ status: 503, body: { message: "Redis cannot be reached" } });
  loader.refresh();
  const { source } = await attempt();
  assert.deepEqual(source.answer, { a: 1 });
  assert.equal(source.problem?.status, 503);
  assert.equal(source.problem?.message, "Redis cannot be reached");
  reply = () => ({ body: { a: 1 } });
  loader.refresh();
  assert.ok((await attempt()).news); // that the problem is gone
  assert.equal(source.problem, null);
});

test("an outage that one request meets is that of all", async () => {
  const { loader, attempt } = observed();
  reply = (path) => (path === "/b" ? { status: 500 } : {});
  loader.open({ jobs: request("a") });
  await attempt();
  const { jobs } = loader.sources;
  loader.open({ jobs: request("a"), groups: request("b") });
  assert.equal((await attempt()).source.problem?.status, 500);
  assert.equal(loader.sources.jobs?.problem?.status, 500);
  assert.equal(jobs?.problem, null);
});

test("a server that says wait is not asked, whatever the reader does", async () => {
  const { loader, attempt } = observed();
  reply = () => ({ status: 429, headers: { "Retry-After": "3600" } });
  loader.open({ jobs: request("a") });
  const { source } = await attempt();
  assert.ok((source.problem?.until ?? 0) > Date.now() + 3_000_000);
  loader.refresh();
  assert.ok(!isAsking(loader));
  loader.open({ jobs: request("b") });
  assert.ok(!isAsking(loader));
});

test("a request that is not accepted is not repeated", async () => {
  const { loader, attempt } = observed();
  reply = () => ({ status: 400, body: { message: "no" } });
  loader.open({ jobs: request("a") });
  const { source } = await attempt();
  assert.equal(source.problem?.until, Number.POSITIVE_INFINITY);
  loader.tick();
  assert.ok(!isAsking(loader));
});

test("an answer that is cut off, or no JSON, is an outage", async () => {
  const { loader, attempt } = observed();
  reply = () => ({ body: '{"jobs": [' });
  loader.open({ jobs: request("a") });
  const { problem } = (await attempt()).source;
  assert.equal(problem?.status, 0);
  assert.match(String(problem?.message), /cut off/);
});

test("a guess from the same network does not look like a wait", async () => {
  const { loader, attempt } = observed();
  reply = () => ({ status: 429, headers: { "WWW-Authenticate": "Bearer" } });
  loader.open({ jobs: request("a") });
  assert.equal((await attempt()).source.problem?.status, 401);
});

test("the next page shows the former one, marked, until it is there", async () => {
  const { loader, attempt } = observed();
  reply = (path) => ({ body: { path } });
  loader.open({ jobs: request("1", { series: "jobs" }) });
  await attempt();
  loader.open({ jobs: request("2", { series: "jobs" }) });
  assert.ok(loader.sources.jobs?.outdated);
  assert.deepEqual(loader.sources.jobs?.answer, { path: "/1" });
  await attempt();
  assert.ok(!loader.sources.jobs?.outdated);
  assert.deepEqual(loader.sources.jobs?.answer, { path: "/2" });
  // Back at the first one, its answer is known still, and not due.
  loader.open({ jobs: request("1", { series: "jobs" }) });
  assert.deepEqual(loader.sources.jobs?.answer, { path: "/1" });
  assert.ok(!isAsking(loader));
  // Of another series nothing is shown.
  loader.open({ jobs: request("3") });
  assert.equal(loader.sources.jobs?.answer, null);
  await attempt();
});

test("while it is paused, only what is not there yet is asked for", async () => {
  const { loader, attempt } = observed();
  loader.paused = true;
  loader.open({ jobs: request("a", { every: 0 }) });
  await attempt();
  loader.tick();
  assert.ok(!isAsking(loader));
  loader.paused = false;
  loader.tick();
  assert.ok(isAsking(loader));
  await attempt();
});

test("what watches another answer is due as soon as that has changed", async () => {
  const { loader, attempt } = observed();
  let failed = 1;
  reply = () => ({ body: { counts: { failed } } });
  const watch = (/** @type {any} */ sources) => sources.jobs?.answer?.counts.failed;
  loader.open({ jobs: request("jobs", { every: 0 }), groups: request("groups", { watch }) });
  await attempt();
  await attempt();
  loader.tick();
  await attempt();
  assert.deepEqual(asked.sort(), ["/groups", "/jobs", "/jobs"]);
  failed = 2;
  loader.tick();
  await attempt();
  assert.equal(loader.sources.groups?.dueAt, 0);
});

test("after signing out nothing is known", async () => {
  const { loader, attempt } = observed();
  reply = () => ({ body: { secret: 1 } });
  loader.open({ jobs: request("a") });
  await attempt();
  loader.clear();
  assert.deepEqual(loader.all, []);
  loader.open({ jobs: request("a") });
  assert.equal(loader.sources.jobs?.answer, null);
  await attempt();
});

test("one thing more is read without giving up the others, and only once", async () => {
  const { loader, attempt } = observed();
  const request = (/** @type {string} */ path) => ({ path, every: 60, series: path });
  loader.open({ jobs: request("jobs") });
  loader.add("group", request("group"));
  loader.add("group", request("group"));
  const read = [await attempt(), await attempt()].map(({ source }) => source.request.path);
  assert.deepEqual(read.sort(), ["group", "jobs"]);
  assert.deepEqual(asked.sort(), ["/group", "/jobs"]);
  assert.deepEqual(Object.keys(loader.sources), ["jobs", "group"]);
  loader.open({ jobs: request("jobs") });
  assert.deepEqual(Object.keys(loader.sources), ["jobs"]);
});
