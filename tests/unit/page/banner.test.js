// What is said of answers that did not come.

import assert from "node:assert/strict";
import { test } from "node:test";
import { banner } from "../../../exporter/web/page/banner.js";
import { clock } from "../../../exporter/web/page/times.js";
import { sourceWith } from "../../support/queues.js";
import { textOf } from "../../support/text_of.js";

const AT = new Date(2026, 0, 31, 14, 3, 4).getTime();

/**
 * @param {Partial<import("../../../exporter/web/page/loader.js").Problem>} problem
 * @param {object} rest
 */
function failed(problem, rest = {}) {
  const whole = { status: 0, message: "", busy: false, until: 0, ...problem };
  return sourceWith({ problem: whole, ...rest });
}

/** @param {ReturnType<typeof sourceWith>[]} sources */
function said(...sources) {
  return textOf(banner(sources, () => {}));
}

test("nothing is said as long as all is well, and a 404 is said by the view", () => {
  assert.equal(
    banner([], () => {}),
    null,
  );
  assert.equal(
    banner([sourceWith({ answer: {} }), failed({ status: 404 })], () => {}),
    null,
  );
});

test("the cause is named by what the reader can do something about", () => {
  const again = "asking…Try now";
  assert.equal(said(failed({ status: 503 })), `Redis cannot be reached.${again}`);
  assert.equal(
    said(failed({ status: 503, message: "Other searches are running.", busy: true })),
    `Other searches are running.${again}`,
  );
  assert.equal(said(failed({ status: 0 })), `The exporter cannot be reached.${again}`);
  assert.equal(
    said(failed({ status: 0, message: "it did not answer in a minute" })),
    `The exporter cannot be reached (it did not answer in a minute).${again}`,
  );
  assert.equal(
    said(failed({ status: 500, message: "a \u202efault" })),
    `The exporter answered with the error 500: a \\u202efault.${again}`,
  );
});

test("where asking again would not help, it is not offered", () => {
  assert.equal(
    said(failed({ status: 400, message: "text must not be longer than 500 characters" })),
    "The exporter does not accept this request: text must not be longer than 500 characters.",
  );
  const waits = "Too many requests; the page waits before it asks again.";
  assert.equal(said(failed({ status: 429 })), `${waits}asking…`);
  assert.match(
    said(failed({ status: 429, until: Date.now() + 3_600_000 })),
    /next attempt in 3\d\d\d s$/,
  );
});

test("the age of what is shown is that of its oldest part", () => {
  const old = (/** @type {number} */ readAt) => failed({ status: 503 }, { answer: {}, readAt });
  assert.match(
    said(old(AT + 60_000), old(AT), failed({ status: 503 })),
    new RegExp(`; this is what was read at ${clock(AT)}\\.`),
  );
  const former = failed({ status: 503 }, { answer: {}, readAt: AT, outdated: true });
  assert.match(said(former), /^Redis cannot be reached\.a/);
});
