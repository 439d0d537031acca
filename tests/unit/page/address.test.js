// The address of the page is the whole state of a view.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  change,
  jobAddress,
  jobLink,
  misread,
  queueAddress,
  readAddress,
  STATUSES,
  textLink,
  unfiltered,
  writeAddress,
} from "../../../exporter/web/page/address.js";

const NOTHING = readAddress("");

/** @param {any} content */
function tag(content) {
  return content.type;
}

test("what was written is read again", () => {
  const views = [
    NOTHING,
    queueAddress({ queue: "a/b &=?#\u202e😀", prefix: "{t}", target: "europe" }, "delayed"),
    change(queueAddress({ queue: "q" }), { group: "f1", window: "24h", page: 7, order: "asc" }),
    change(queueAddress({ queue: ".." }), { name: "  x ", text: "a+b%20" }),
    jobAddress({ queue: "q" }, { id: "\\xff", encodedId: "%FF" }),
    change(jobAddress({ queue: "q" }, { id: "1" }), { logs: 3 }),
    { ...NOTHING, job_key: "bull:q:1" },
  ];
  for (const view of views) assert.deepEqual(readAddress(writeAddress(view)), view);
});

test("a link says only what is not the default", () => {
  assert.equal(writeAddress({}), "./");
  assert.equal(writeAddress(NOTHING), "./");
  assert.equal(writeAddress(queueAddress({ queue: "q" })), "?queue=q");
  assert.equal(writeAddress(queueAddress({ queue: "q" }, "active")), "?queue=q&status=active");
});

test("what makes no sense becomes the default, and is named", () => {
  const search = "?queue=q&status=lost&page=-3&window=5y&order=up&logs=x&job_encoded=%25FF&other=1";
  assert.deepEqual(readAddress(search), queueAddress({ queue: "q" }));
  assert.deepEqual(misread(search), [
    "status=lost",
    "page=-3",
    "window=5y",
    "order=up",
    "logs=x",
    "job_encoded=%FF",
  ]);
  for (const page of ["0", "1.5", "01", "1e3", "9999999999", " 1", ""]) {
    assert.equal(readAddress(`?queue=q&page=${page}`).page, 1);
  }
  assert.deepEqual(misread("?queue=q&constructor=1&page=2&text="), []);
});

test("group and window are of failed jobs only, and anything else needs a queue", () => {
  for (const status of STATUSES) {
    const { group, window } = readAddress(`?queue=q&status=${status}&group=f&window=1h`);
    assert.deepEqual([group, window], status === "failed" ? ["f", "1h"] : ["", ""]);
    // As metrics, alerts and the API call it.
    const linked = readAddress(`?queue=q&status=${status}&fingerprint=f`);
    assert.equal(linked.group, status === "failed" ? "f" : "");
  }
  assert.deepEqual(readAddress("?job=1&page=2"), NOTHING);
  assert.deepEqual(readAddress("?job_key=k&queue=q&page=2"), { ...NOTHING, job_key: "k" });
});

test("without its filters a list is the same list", () => {
  const list = change(queueAddress({ queue: "q", prefix: "p" }, "active"), { order: "asc" });
  const filtered = change(list, { group: "f", name: "n", text: "t", page: 4, job: "1", logs: 2 });
  assert.deepEqual(unfiltered(filtered), list);
});

test("what no server would read is no link", () => {
  const place = { queue: "q" };
  assert.equal(tag(jobLink(jobAddress(place, { id: "1" }), {}, "1")), "a");
  assert.equal(tag(jobLink(jobAddress(place, { id: "i".repeat(200_000) }), {}, "1")), "span");
  assert.equal(tag(jobLink(jobAddress(place, { id: "" }), {}, "1")), "span");
  const search = (/** @type {string} */ text) => change(queueAddress(place), { text });
  assert.equal(tag(textLink(search("x".repeat(500)), {}, "source")), "a");
  assert.equal(textLink(search("x".repeat(501)), {}, "source"), "source");
});
