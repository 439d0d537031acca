// Points in time and spans of time. What shows a time of day is compared with the clock's own parts:
// whoever runs this may live anywhere.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  absolute,
  absoluteTimes,
  age,
  clock,
  duration,
  endTime,
  fullTime,
  lasting,
  relative,
  time,
  toggleTimes,
} from "../../../exporter/web/page/times.js";
import { textOf } from "../../support/text_of.js";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const AT = new Date(2026, 0, 31, 4, 3, 4).getTime();

test("a time is relative to now, in one unit", () => {
  const cases = /** @type {const} */ ([
    [0, "now"],
    [499, "now"],
    [500, "1 s ago"],
    [59 * SECOND, "59 s ago"],
    [60 * SECOND, "1 min ago"],
    [119 * MINUTE, "1 h ago"],
    [24 * HOUR, "1 d ago"],
    [400 * DAY, "400 d ago"],
    [-500, "in 1 s"],
    [-3 * HOUR, "in 3 h"],
  ]);
  for (const [before, text] of cases) assert.equal(relative(AT - before, AT), text);
});

test("what lasts has a duration, and no point in time unless that was chosen", (t) => {
  const cases = /** @type {const} */ ([
    [0, "0 s"],
    [1 * SECOND, "1 s"],
    [119 * SECOND, "1 min"],
    [26 * HOUR, "1 d"],
    // By a clock that is ahead.
    [-5 * SECOND, "0 s"],
  ]);
  for (const [before, text] of cases) assert.equal(age(AT - before, AT), text);
  const hourAgo = Date.now() - HOUR;
  assert.equal(textOf(lasting(hourAgo)), "1 h");
  assert.equal(textOf(lasting(null)), "–");
  t.after(toggleTimes);
  toggleTimes();
  assert.equal(textOf(lasting(hourAgo)), `since ${absolute(hourAgo)}`);
});

test("a span of time has up to two units", () => {
  const cases = /** @type {const} */ ([
    [null, "–"],
    [undefined, "–"],
    [0, "0 ms"],
    [999.4, "999 ms"],
    [1000, "1.0 s"],
    [59_949, "59.9 s"],
    [59_950, "1 min"],
    [60_000, "1 min"],
    [200 * SECOND, "3 min 20 s"],
    [2 * DAY + 4 * HOUR + 5 * MINUTE, "2 d 4 h"],
    [2 * DAY + 59 * MINUTE, "2 d"],
    [-90 * MINUTE, "−1 h 30 min"],
  ]);
  for (const [ms, text] of cases) assert.equal(duration(ms), text);
});

test("a point in time is written with two digits for each part", () => {
  assert.equal(absolute(AT), "2026-01-31 04:03:04");
  assert.equal(clock(AT), "04:03:04");
});

test("a time is relative or absolute, as the reader has chosen", () => {
  const hourAgo = Date.now() - 1.5 * HOUR;
  assert.equal(textOf(time(hourAgo)), "1 h ago");
  toggleTimes();
  assert.ok(absoluteTimes());
  assert.equal(textOf(time(hourAgo)), absolute(hourAgo));
  toggleTimes();
  assert.equal(textOf(time(hourAgo)), "1 h ago");
});

test("a time in full says both", () => {
  const hourAgo = Date.now() - 1.5 * HOUR;
  assert.equal(textOf(fullTime(hourAgo)), `${absolute(hourAgo)} · 1 h ago`);
});

test("an end has a date unless it is today", () => {
  const now = Date.now();
  assert.match(textOf(endTime(now)), /^\d\d:\d\d:\d\d$/);
  assert.equal(textOf(endTime(now + 2 * DAY)), absolute(now + 2 * DAY));
});

test("what is no time is shown as it is", () => {
  for (const show of [time, fullTime]) {
    assert.equal(show(null), "–");
    assert.equal(show(undefined), "–");
    assert.equal(show(8.64e15 + 1), "8640000000000001");
    assert.equal(show(/** @type {any} */ ("x")), "x");
  }
});
