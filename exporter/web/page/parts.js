// Parts that several views are made of.

import { announce, element } from "./dom.js";
import { bytes, head, number, short, visibleLines } from "./text.js";

const SHOWN_AT_FIRST = 100_000;
const COPIED_FOR = 2000;

export function heading(...children) {
  return element("h1", { id: "view-heading", tabindex: "-1" }, ...children);
}

export function badge(text, kind = "", title = null) {
  return element("span", { class: `badge ${kind}`, title }, text);
}

/** The target and the prefix of a queue, where its name alone does not say which one it is. */
export function whereabouts({ target, prefix }) {
  return [target, prefix].filter(Boolean).map((part) =>
    element("span", { class: "muted prefix" }, " ", short(part)));
}

/** A count; null means that it could not be read, which is not the same as none. */
export function count(value) {
  if (value === null || value === undefined) {
    return element("span", { class: "unknown", title: "could not be read" }, "?");
  }
  return number(value);
}

export function loading(what) {
  return element("p", { class: "quiet", role: "status" }, `Loading ${what}…`);
}

export function notice(kind, ...children) {
  return element("p", { class: `notice ${kind}` }, ...children);
}

/**
 * A section whose content comes from a source. What is no longer sure to be true is dimmed: it
 * is old (the last attempt failed) or belongs to the former choice (the new one is being read).
 */
export function section(source, attributes, ...children) {
  const old = source?.answer && source.problem;
  const waits = source && !source.problem && (source.outdated || !source.answer);
  return element("section", { ...attributes, "aria-busy": waits ? "true" : null,
    class: `panel ${attributes.class ?? ""} ${old ? "old" : ""} ${waits ? "waits" : ""}`.trim() },
  ...children);
}

/**
 * A table that becomes a list of cards on narrow screens. The roles are said again because
 * browsers forget them when the display of a table changes.
 */
export function table({ id, caption, columns, rows }) {
  const header = columns.map(({ label, kind }) => element("th",
    { role: "columnheader", scope: "col", class: kind }, label));
  const body = rows.map(({ key, cells, className, onclick }) => element("tr",
    { key, role: "row", class: className, onclick }, cells.map((cell, at) => element("td",
      { role: "cell", class: columns[at].kind, "data-label": columns[at].label }, cell))));
  return element("table", { id, role: "table" },
    element("caption", { class: "unseen" }, caption),
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, header)),
    element("tbody", { role: "rowgroup" }, body));
}

/** A click anywhere in a row follows its first link, unless it was meant for something else. */
export function followRow(event) {
  if (event.target.closest("a, button, summary")) return;
  if (!document.getSelection().isCollapsed) return;
  const link = event.currentTarget.querySelector("a[data-view]");
  // Coming back puts the focus on what was left.
  link?.focus({ preventScroll: true });
  link?.click();
}

/** A button that copies what `read` returns. */
export function copyButton(label, read, attributes = {}) {
  return element("button", { type: "button", class: "copy", ...attributes,
    onclick: async (event) => {
      const button = event.currentTarget;
      const done = await copy(read());
      button.dataset.done = done ? "copied" : "not copied";
      announce(done ? "Copied" : "Could not be copied");
      setTimeout(() => delete button.dataset.done, COPIED_FOR);
    } }, label);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Not allowed, or not there: browsers offer it over https and on localhost only.
    return copyBySelection(text);
  }
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const area = element("textarea", { class: "unseen", value: text, "aria-hidden": "true" });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus({ preventScroll: true });
  return done;
}

/** A text of any size in a box of its own; of a huge one only the beginning, until asked for. */
export function textBox(text, label, key, context) {
  const whole = text.length <= SHOWN_AT_FIRST || context.opened.has(key);
  const shown = visibleLines(whole ? text : head(text, SHOWN_AT_FIRST));
  const box = element("pre", { key, tabindex: "0", role: "region", "aria-label": label }, shown);
  if (whole) return box;
  const showAll = () => context.open(key);
  return [box, element("p", { class: "more" },
    `The first ${number(SHOWN_AT_FIRST)} of ${number(text.length)} characters. `,
    element("button", { type: "button", onclick: showAll }, `Show all (${bytes(text)})`))];
}
