// Parts that several views share.

import { link } from "./address.js";
import { html } from "./html.js";
import { announce } from "./screen.js";
import { bytes, head, number, short, visibleLines } from "./text.js";

/** @import { Attributes } from "./address.js" */
/** @import { Content } from "./html.js" */
/** @import { Source, Sources } from "./loader.js" */

/**
 * The input of a view.
 *
 * @typedef {object} Context
 * @property {import("./address.js").Address} address
 * @property {Sources} sources
 * @property {Set<string>} opened keys of what the reader has unfolded in this view
 * @property {Set<string>} names of jobs, seen in this queue
 * @property {(to: import("./address.js").Address, how?: Going) => void} go to another view
 * @property {(key: string) => void} open unfolds something
 */

/**
 * @typedef {object} Going how to go to another view
 * @property {string} [focus] "heading", "jobs" (the heading of the list) or "keep"
 * @property {boolean} [replace] the present step of the history, in place of adding one
 */

/**
 * @typedef {object} Column
 * @property {string} label
 * @property {string} kind its class
 */

/**
 * @typedef {object} Row
 * @property {string} key
 * @property {Content[]} cells
 * @property {string} [className]
 * @property {(event: MouseEvent) => void} [onclick]
 */

const SHOWN_AT_FIRST = 100_000; // characters
const COPIED_SHOWN_MS = 2000;

/** @param {Content} children */
export function heading(children) {
  return html`<h1 id="view-heading" tabindex="-1">${children}</h1>`;
}

/**
 * @param {Content} text
 * @param {string} kind "good", "warn", "bad" or ""
 * @param {string} [title]
 */
export function badge(text, kind = "", title = undefined) {
  return html`<span class="badge ${kind}" title=${title}>${text}</span>`;
}

/**
 * The target and the prefix of a queue, if its name alone is ambiguous.
 *
 * @param {{target?: string, prefix?: string}} place
 */
export function whereabouts({ target, prefix }) {
  return [target, prefix]
    .filter(Boolean)
    .map((name) => html`<span class="muted prefix">${" "}${short(name)}</span>`);
}

/**
 * A count; null means that it could not be read, which is not the same as none.
 *
 * @param {number | null | undefined} value
 */
export function count(value) {
  return value === null || value === undefined ? unreadable() : number(value);
}

export function unreadable() {
  return html`<span class="unknown" title="could not be read">?</span>`;
}

/** @param {Content} text */
export function none(text) {
  return html`<span class="none">${text}</span>`;
}

/** @param {string} what */
export function loading(what) {
  return html`<p class="quiet" role="status">Loading ${what}…</p>`;
}

/**
 * @param {string} kind "quiet", "warn" or "bad"
 * @param {Content} children
 */
export function notice(kind, children) {
  return html`<p class="notice ${kind}">${children}</p>`;
}

/**
 * A section whose content comes from a source. What is no longer sure to be true is dimmed: it
 * is old (the last attempt failed) or belongs to the former choice (the new one is being read).
 *
 * @param {Source<any> | null | undefined} source
 * @param {Attributes & {class?: string}} attributes
 * @param {Content} children
 */
export function section(source, attributes, children) {
  const isOld = source?.answer && source.problem;
  const isAwaited = source && !source.problem && (source.outdated || !source.answer);
  const classes = ["panel", attributes.class, isOld && "old", isAwaited && "waits"];
  return html`<section ...${attributes} aria-busy=${isAwaited ? "true" : undefined}
    class=${classes.filter(Boolean).join(" ")}>${children}</section>`;
}

/**
 * A table that becomes a list of cards on narrow screens. The roles are said again because
 * browsers forget them when the display of a table changes.
 *
 * @param {{id: string, caption: string, columns: Column[], rows: Row[]}} table
 */
export function table({ id, caption, columns, rows }) {
  const header = columns.map(
    ({ label, kind }) =>
      html`<th key=${label} role="columnheader" scope="col" class=${kind}>${label}</th>`,
  );
  const cell = (/** @type {Content} */ content, /** @type {number} */ at) =>
    html`<td key=${columns[at]?.label} role="cell" class=${columns[at]?.kind}
      data-label=${columns[at]?.label}>${content}</td>`;
  const body = rows.map(
    ({ key, cells, className, onclick }) =>
      html`<tr key=${key} role="row" class=${className} onclick=${onclick}>${cells.map(cell)}</tr>`,
  );
  return html`<table id=${id} role="table">
    <caption class="unseen">${caption}</caption>
    <thead role="rowgroup"><tr role="row">${header}</tr></thead>
    <tbody role="rowgroup">${body}</tbody>
  </table>`;
}

/**
 * A link to another page of a list, or its text where there is no such page.
 *
 * @param {string} id
 * @param {string} label
 * @param {import("./address.js").Address | false} to
 * @param {string} focus where the focus goes
 */
export function step(id, label, to, focus) {
  if (to) return link(to, { id, class: "button", "data-focus": focus }, label);
  return html`<span id=${id} class="button" aria-disabled="true" role="link">${label}</span>`;
}

/**
 * On a phone, a long list shows only its first rows until asked for more; page.css hides the rest.
 *
 * @param {Context} context
 * @param {{key: string, shown: number, rows: number, label: (more: number) => string}} list
 */
export function foldOnPhones(context, { key, shown, rows, label }) {
  const more = rows - shown;
  if (more <= 0 || context.opened.has(key)) return { className: "", button: null };
  const show = () => context.open(key);
  return {
    className: `folded-${shown}`,
    button: html`<p class="more unfold"><button type="button" onclick=${show}>${label(more)}</button></p>`,
  };
}

/**
 * A click anywhere in a row follows its first link, unless it was meant for something else.
 *
 * @param {MouseEvent} event
 */
export function followRow(event) {
  if (!(event.target instanceof Element && event.currentTarget instanceof Element)) return;
  if (event.target.closest("a, button, summary")) return;
  if (!document.getSelection()?.isCollapsed) return;
  /** @type {HTMLAnchorElement | null} */
  const link = event.currentTarget.querySelector("a[data-view]");
  // Going back restores the focus.
  link?.focus({ preventScroll: true });
  link?.click();
}

/**
 * A button that copies what `read` returns.
 *
 * @param {string} label
 * @param {() => string} read
 * @param {Attributes} attributes
 */
export function copyButton(label, read, attributes = {}) {
  const onclick = async (/** @type {{currentTarget: HTMLElement}} */ { currentTarget: button }) => {
    const done = await copy(read());
    button.dataset.done = done ? "copied" : "not copied";
    announce(done ? "Copied" : "Could not be copied");
    setTimeout(() => delete button.dataset.done, COPIED_SHOWN_MS);
  };
  return html`<button type="button" class="copy" ...${attributes} onclick=${onclick}>
    ${label}
  </button>`;
}

/**
 * @param {string} text
 * @returns whether it could be copied
 */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Not allowed, or missing: browsers offer it only over https and on localhost.
    return copyBySelection(text);
  }
}

/** @param {string} text */
function copyBySelection(text) {
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.className = "unseen";
  area.value = text;
  area.setAttribute("aria-hidden", "true");
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
  return done;
}

/**
 * A text of any size in a box of its own; only the beginning of a huge one, until all is requested.
 *
 * @param {string} text
 * @param {string} label
 * @param {string} key boxes of different keys are not scrolled together
 * @param {Context} context
 */
export function textBox(text, label, key, context) {
  const isWhole = text.length <= SHOWN_AT_FIRST || context.opened.has(key);
  const shown = visibleLines(isWhole ? text : head(text, SHOWN_AT_FIRST));
  const showAll = () => context.open(key);
  return html`
    <pre key=${key} tabindex="0" role="region" aria-label=${label}>${shown}</pre>
    ${
      !isWhole &&
      html`<p class="more">
        The first ${number(SHOWN_AT_FIRST)} of ${number(text.length)} characters.${" "}
        <button type="button" onclick=${showAll}>Show all (${bytes(text)})</button>
      </p>`
    }`;
}
