// Texts and numbers for people, whatever characters come from jobs.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  bytes,
  counted,
  cut,
  firstLine,
  head,
  number,
  plain,
  short,
  visible,
  visibleLines,
} from "../../../exporter/web/page/text.js";
import { textOf } from "../../support/text_of.js";

test("what would be invisible, or turn the text around, is written out", () => {
  assert.equal(visible("a\u0000b\u001b[31m\u007f"), "a␀b␛[31m␡");
  assert.equal(visible("\u202egnp.exe\u200b\ufeff"), "\\u202egnp.exe\\u200b\\ufeff");
  assert.equal(visible("é 😀 👨\u200d👩 <b>"), "é 😀 👨\u200d👩 <b>");
  assert.equal(visible("a\nb"), "a␊b");
  assert.equal(visibleLines("a\n\tb\r\n\u0007"), "a\n\tb\r\n␇");
});

test("a text is never cut within a character of two halves", () => {
  assert.equal(head("a😀b", 4), "a😀b");
  assert.equal(head("a😀b", 3), "a😀");
  assert.equal(head("a😀b", 2), "a");
  assert.equal(cut("abc", 3), "abc");
  assert.equal(cut("abcd", 3), "abc…");
});

test("a short text is cut, and anything else than text is JSON", () => {
  assert.equal(textOf(short("x".repeat(200))), `${"x".repeat(120)}…`);
  assert.equal(textOf(short({ a: [1, null] })), '{"a":[1,null]}');
  assert.equal(plain("x"), "x");
  assert.equal(plain(null), "null");
  assert.equal(plain(undefined), "");
});

test("the first line is the first that is not empty", () => {
  assert.equal(firstLine("\n  Error: x\r\n    at y"), "Error: x");
  assert.equal(firstLine(""), "");
});

test("numbers are grouped, and counted things are named", () => {
  assert.equal(number(1234567), "1,234,567");
  assert.equal(counted(1, "job"), "1 job");
  assert.equal(counted(0, "job"), "0 jobs");
  assert.equal(counted(2000, "child", "children"), "2,000 children");
});

test("the size of a text is that of its bytes", () => {
  assert.equal(bytes("é"), "2 B");
  assert.equal(bytes("x".repeat(999)), "999 B");
  assert.equal(bytes("x".repeat(1500)), "1.5 kB");
  assert.equal(bytes("x".repeat(2_000_000)), "2.0 MB");
});
