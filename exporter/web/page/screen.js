// Updates the screen without disturbing the reader.

import { render } from "./html.js";

/** @import { Content } from "./html.js" */

const ANCHORS = "tr, li, h1, h2, pre";

/**
 * Draw `content` as the content of `parent`. Focus, selection and scroll position stay.
 *
 * @param {HTMLElement} parent
 * @param {Content} content
 */
export function drawInto(parent, content) {
  const restore = [holdFocus(), holdSelection(), holdScroll(parent)];
  render(content, parent);
  for (const back of restore) back();
}

/**
 * Announce a text to screen readers.
 *
 * @param {string} text
 */
export function announce(text) {
  part("announcer").textContent = text;
}

/**
 * An element that index.html has, or that is drawn in every view.
 *
 * @param {string} id
 */
export function part(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element #${id}`);
  return found;
}

// Each of these remembers something that a change may disturb, and returns what restores it.

/** An element that is moved loses its focus in browsers without `moveBefore`. */
function holdFocus() {
  const focused = document.activeElement;
  return () => {
    if (
      focused instanceof HTMLElement &&
      focused !== document.activeElement &&
      focused.isConnected
    ) {
      focused.focus({ preventScroll: true });
    }
  };
}

function holdSelection() {
  const selection = document.getSelection();
  const { anchorNode, anchorOffset, focusNode, focusOffset } = selection ?? {};
  if (!selection || selection.isCollapsed || !anchorNode || !focusNode) return () => {};
  return () => {
    if (!anchorNode.isConnected || !focusNode.isConnected) return;
    const same =
      selection.anchorNode === anchorNode &&
      selection.anchorOffset === anchorOffset &&
      selection.focusNode === focusNode &&
      selection.focusOffset === focusOffset;
    if (same) return;
    selection.setBaseAndExtent(
      anchorNode,
      Math.min(anchorOffset ?? 0, lengthOf(anchorNode)),
      focusNode,
      Math.min(focusOffset ?? 0, lengthOf(focusNode)),
    );
  };
}

/**
 * Keep what the reader looks at in its place, even when rows appear above it.
 *
 * @param {HTMLElement} parent
 */
function holdScroll(parent) {
  if (window.scrollY === 0) return () => {};
  const top = (/** @type {Element} */ node) => node.getBoundingClientRect().top;
  const seen = [document.activeElement, ...parent.querySelectorAll(ANCHORS)]
    .filter((node) => node !== null)
    .filter((node) => parent.contains(node) && node !== parent)
    .map((node) => ({ node, before: top(node) }))
    .filter(({ before }) => before >= 0 && before < window.innerHeight);
  return () => {
    const anchor = seen.find(({ node }) => node.isConnected);
    const moved = anchor ? top(anchor.node) - anchor.before : 0;
    if (Math.abs(moved) >= 1) window.scrollBy({ top: moved, behavior: "instant" });
  };
}

/** @param {Node} node */
function lengthOf(node) {
  return node instanceof Text ? node.length : node.childNodes.length;
}
