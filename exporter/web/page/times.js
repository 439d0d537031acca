// Points in time and spans of time, in milliseconds; relative or absolute, as the reader has chosen.

import { html } from "./html.js";
import { recall, remember } from "./session.js";

/** @type {[string, number][]} in seconds */
const UNITS = [
  ["d", 86400],
  ["h", 3600],
  ["min", 60],
  ["s", 1],
];

export function absoluteTimes() {
  return recall("times") === "absolute";
}

export function toggleTimes() {
  remember("times", absoluteTimes() ? "relative" : "absolute");
}

/**
 * "4 min ago", "in 3 h".
 *
 * @param {number} ms
 */
export function relative(ms, now = Date.now()) {
  const seconds = Math.round(Math.abs(now - ms) / 1000);
  const found = UNITS.find(([, size]) => seconds >= size);
  if (!found) return "now";
  const [unit, size] = found;
  const span = `${Math.floor(seconds / size)} ${unit}`;
  return ms > now ? `in ${span}` : `${span} ago`;
}

/**
 * "4 min": how long it has lasted.
 *
 * @param {number} ms when it began
 */
export function age(ms, now = Date.now()) {
  const seconds = Math.round((now - ms) / 1000);
  const [unit, size] = UNITS.find(([, each]) => seconds >= each) ?? ["s", 1];
  return `${Math.max(0, Math.floor(seconds / size))} ${unit}`;
}

/** @param {number} value */
function twoDigits(value) {
  return String(value).padStart(2, "0");
}

/**
 * 2026-01-31 14:03:04 on the reader's clock.
 *
 * @param {number} ms
 */
export function absolute(ms) {
  const at = new Date(ms);
  const day = [at.getFullYear(), twoDigits(at.getMonth() + 1), twoDigits(at.getDate())].join("-");
  return `${day} ${clock(ms)}`;
}

/**
 * 14:03:04 on the reader's clock.
 *
 * @param {number} ms
 */
export function clock(ms) {
  const at = new Date(ms);
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map(twoDigits).join(":");
}

/**
 * "350 ms", "4.2 s", "3 min 20 s", "2 d 4 h".
 *
 * @param {number | null | undefined} ms
 * @returns {string}
 */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 0) return `−${duration(-ms)}`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  const first = UNITS.findIndex(([, size]) => seconds >= size);
  const [[unit, size], [smaller, part]] = UNITS.slice(first);
  const rest = Math.floor((seconds % size) / part);
  return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${smaller}` : ""}`;
}

/**
 * A job may contain any number as a time, even one that is not a date.
 *
 * @param {unknown} ms
 * @returns {ms is number}
 */
function isDate(ms) {
  return typeof ms === "number" && !Number.isNaN(new Date(ms).getTime());
}

/** @param {number} ms */
function utc(ms) {
  return new Date(ms).toISOString();
}

/** @param {number} ms */
function bothClocks(ms) {
  return `${absolute(ms)} local time, ${utc(ms).slice(0, 19).replace("T", " ")} UTC`;
}

/**
 * A time in a list: relative or absolute, the other one in its title.
 *
 * @param {number | null | undefined} ms
 */
export function time(ms) {
  if (ms === null || ms === undefined) return "–";
  if (!isDate(ms)) return String(ms);
  const text = absoluteTimes() ? absolute(ms) : relative(ms);
  return html`<time datetime=${utc(ms)} title=${bothClocks(ms)} data-ms=${ms}>${text}</time>`;
}

/**
 * How long something has lasted, or since when, as the reader has chosen.
 *
 * @param {number | null | undefined} ms when it began
 */
export function lasting(ms) {
  if (ms === null || ms === undefined) return "–";
  if (!isDate(ms)) return String(ms);
  const text = absoluteTimes() ? `since ${absolute(ms)}` : age(ms);
  const title = `since ${bothClocks(ms)}`;
  return html`<time datetime=${utc(ms)} title=${title} data-began=${ms}>${text}</time>`;
}

/**
 * The end in "until …": the time of day, with the date unless it is today.
 *
 * @param {number | null} ms
 */
export function endTime(ms) {
  if (!isDate(ms)) return String(ms);
  const today = new Date(ms).toDateString() === new Date().toDateString();
  const text = today ? clock(ms) : absolute(ms);
  return html`<time datetime=${utc(ms)} title=${bothClocks(ms)}>${text}</time>`;
}

/**
 * A time in full: relative and absolute.
 *
 * @param {number | null | undefined} ms
 */
export function fullTime(ms) {
  if (ms === null || ms === undefined) return "–";
  if (!isDate(ms)) return String(ms);
  return html`
    <time datetime=${utc(ms)} title=${bothClocks(ms)}>${absolute(ms)}</time>
    <span class="muted"> · <time datetime=${utc(ms)} data-since=${ms}>${relative(ms)}</time></span>`;
}

/**
 * Let the relative times on the screen grow older, except those somebody is selecting. Once a
 * second, drawing a thousand queues again would be felt; only these texts have changed.
 *
 * @param {HTMLElement} root
 */
export function tickTimes(root) {
  const selection = document.getSelection();
  const list = absoluteTimes()
    ? "time[data-since]"
    : "time[data-ms], time[data-since], time[data-began]";
  for (const node of /** @type {NodeListOf<HTMLTimeElement>} */ (root.querySelectorAll(list))) {
    const { began, ms, since } = node.dataset;
    const text = began ? age(Number(began)) : relative(Number(ms ?? since));
    if (node.textContent === text) continue;
    if (selection && !selection.isCollapsed && selection.containsNode(node, true)) continue;
    // The text node stays: it is Preact's, which changes it too.
    if (node.firstChild instanceof Text) node.firstChild.data = text;
  }
}
