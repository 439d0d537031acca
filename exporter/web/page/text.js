// Texts and numbers for people. What comes from jobs may hold any character at all.

import { html } from "./html.js";

const LINE_ENDS = /[\n\r\t]/;
// C0 and C1 controls, marks and overrides of the writing direction, line separators, and
// characters without a width. The joiner U+200D stays: emoji are built with it.
const UNSEEN = new RegExp(
  "[\\u0000-\\u001f\\u007f-\\u009f\\u061c\\u200b\\u200e\\u200f" +
    "\\u2028-\\u202e\\u2060-\\u2069\\ufeff]",
  "g",
);

/** @param {string} character */
function picture(character) {
  const code = character.charCodeAt(0);
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  return `\\u${code.toString(16).padStart(4, "0")}`;
}

/**
 * The text with invisible characters and overrides of the writing direction as escapes.
 *
 * @param {string} text
 */
export function visible(text) {
  return String(text).replace(UNSEEN, picture);
}

/**
 * The same for multi-line texts, which keep their line ends and tabs.
 *
 * @param {string} text
 */
export function visibleLines(text) {
  return String(text).replace(UNSEEN, (found) => (LINE_ENDS.test(found) ? found : picture(found)));
}

/**
 * The first `length` characters, never half of a surrogate pair.
 *
 * @param {string} text
 * @param {number} length
 */
export function head(text, length) {
  if (text.length <= length) return text;
  const start = text.slice(0, length);
  return /[\ud800-\udbff]$/.test(start) ? start.slice(0, -1) : start;
}

/**
 * The same, with `…` if anything was cut off.
 *
 * @param {string} text
 * @param {number} length
 */
export function cut(text, length) {
  return text.length > length ? `${head(text, length)}…` : text;
}

/**
 * A short text that came from a job, kept apart from the writing direction around it.
 *
 * @param {unknown} value
 */
export function short(value, length = 120) {
  return html`<bdi>${cut(visible(plain(value)), length)}</bdi>`;
}

/**
 * A text unchanged, any other value as JSON.
 *
 * @param {unknown} value
 * @returns {string}
 */
export function plain(value) {
  if (typeof value === "string") return value;
  return value === undefined ? "" : JSON.stringify(value);
}

/** @param {string} text */
export function firstLine(text) {
  return text.trimStart().split(/\r?\n/, 1)[0] ?? "";
}

const grouped = new Intl.NumberFormat("en");

/**
 * 1,234,567
 *
 * @param {number} value
 */
export function number(value) {
  return grouped.format(value);
}

/**
 * "1 job", "2 jobs".
 *
 * @param {number} count
 * @param {string} one
 */
export function counted(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

/**
 * The size of a text in UTF-8: "12 B", "1.5 kB", "2.0 MB".
 *
 * @param {string} text
 */
export function bytes(text) {
  const size = new Blob([text]).size;
  if (size < 1e3) return `${size} B`;
  return size < 1e6 ? `${(size / 1e3).toFixed(1)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}
