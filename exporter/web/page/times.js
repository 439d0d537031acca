// Points in time and spans of time, relative or absolute, as the reader has chosen.

import { element } from "./dom.js";
import { recall, remember } from "./session.js";

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

export function absoluteTimes() {
  return recall("times") === "absolute";
}

export function toggleTimes() {
  remember("times", absoluteTimes() ? "relative" : "absolute");
}

/** "4 min ago", "in 3 h". */
export function relative(ms, now = Date.now()) {
  const seconds = Math.round(Math.abs(now - ms) / 1000);
  if (seconds < 1) return "now";
  const [unit, size] = UNITS.find(([, length]) => seconds >= length);
  const span = `${Math.floor(seconds / size)} ${unit}`;
  return ms > now ? `in ${span}` : `${span} ago`;
}

/** 2026-01-31 14:03:04 on the reader's clock. */
export function absolute(ms) {
  const at = new Date(ms);
  const two = (value) => String(value).padStart(2, "0");
  const day = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join("-");
  return `${day} ${clock(ms)}`;
}

export function clock(ms) {
  const at = new Date(ms);
  return [at.getHours(), at.getMinutes(), at.getSeconds()]
    .map((value) => String(value).padStart(2, "0")).join(":");
}

/** "350 ms", "4.2 s", "3 min 20 s", "2 d 4 h". */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 0) return `−${duration(-ms)}`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  const first = UNITS.findIndex(([, size]) => seconds >= size);
  const [unit, size] = UNITS[first];
  const [smaller, part] = UNITS[first + 1];
  const rest = Math.floor((seconds % size) / part);
  return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${smaller}` : ""}`;
}

function shown(ms) {
  return absoluteTimes() ? absolute(ms) : relative(ms);
}

/** A job may carry any number as its time, also one that is no date. */
function isDate(ms) {
  return typeof ms === "number" && !Number.isNaN(new Date(ms).getTime());
}

function timeElement(ms, text, ticks) {
  const utc = new Date(ms).toISOString();
  const title = `${absolute(ms)} local time, ${utc.slice(0, 19).replace("T", " ")} UTC`;
  return element("time", { datetime: utc, title, "data-ms": ticks && ms }, text);
}

/** A time in a list: relative or absolute, the other one in its title. */
export function time(ms) {
  if (ms === null || ms === undefined) return "–";
  return isDate(ms) ? timeElement(ms, shown(ms), "list") : String(ms);
}

/** An end for "until …": the time of day, with the date unless it is today. */
export function endTime(ms) {
  if (!isDate(ms)) return String(ms);
  const today = new Date(ms).toDateString() === new Date().toDateString();
  return timeElement(ms, today ? clock(ms) : absolute(ms), null);
}

/** A time in full: both ways at once. */
export function fullTime(ms) {
  if (ms === null || ms === undefined) return "–";
  if (!isDate(ms)) return String(ms);
  const since = element("time", { datetime: new Date(ms).toISOString(), "data-since": ms },
    relative(ms));
  return [timeElement(ms, absolute(ms)), element("span", { class: "muted" }, " · ", since)];
}

/** Let the relative times on the screen grow older, except those somebody is selecting. */
export function tickTimes(root) {
  const selection = document.getSelection();
  const list = absoluteTimes() ? "time[data-since]" : "time[data-ms], time[data-since]";
  for (const node of root.querySelectorAll(list)) {
    const text = relative(Number(node.dataset.ms ?? node.dataset.since));
    if (node.textContent === text) continue;
    if (!selection.isCollapsed && selection.containsNode(node, true)) continue;
    node.firstChild.data = text;
  }
}
