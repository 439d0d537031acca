// Making elements, and bringing what is on the screen up to date with as little change as possible.

const HANDLERS = ["onclick", "onsubmit", "oninput", "onchange"];

/**
 * element("a", {href: "?", class: "quiet", onclick: f}, "text", child, [more, children])
 *
 * Text always becomes a text node, so nothing that came from a job is ever read as markup.
 * Attributes that are null, undefined or false are left out. `key` says to patch() which element
 * of a list is which. `style` is an object: the policy of the page forbids the attribute.
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "key") node.patchKey = String(value);
    else if (name === "value") node.value = value;
    else if (name === "style") setStyle(node, value);
    else if (HANDLERS.includes(name)) node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...clean(children));
  return node;
}

function setStyle(node, properties) {
  for (const [name, value] of Object.entries(properties)) node.style.setProperty(name, value);
}

function clean(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined
    && child !== false && child !== "").map((child) => (child instanceof Node ? child
    : String(child)));
}

/**
 * Make the children of `parent` look like `children`, keeping every element that can be kept:
 * the one with the focus, opened details, scrolled boxes and the selection all stay.
 */
export function fill(parent, ...children) {
  const fresh = document.createElement(parent.nodeName);
  fresh.append(...clean(children));
  const restore = [holdFocus(), holdSelection(), holdScroll(parent)];
  patchChildren(parent, fresh);
  for (const back of restore) back();
}

function patch(live, fresh) {
  if (live.nodeType === Node.TEXT_NODE) {
    if (live.data !== fresh.data) live.data = fresh.data;
    return;
  }
  patchAttributes(live, fresh);
  for (const name of HANDLERS) if (live[name] !== fresh[name]) live[name] = fresh[name];
  patchChildren(live, fresh);
  // What is being typed belongs to the person who types it.
  if (live.nodeName === "INPUT" && live !== document.activeElement && live.value !== fresh.value) {
    live.value = fresh.value;
  }
}

function patchAttributes(live, fresh) {
  // Whether details are open is for the reader to decide, once they are on the screen.
  const theirs = (name) => name === "style" || (name === "open" && live.nodeName === "DETAILS");
  for (const { name } of [...live.attributes]) {
    if (!theirs(name) && !fresh.hasAttribute(name)) live.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (!theirs(name) && live.getAttribute(name) !== value) live.setAttribute(name, value);
  }
  if (live.style.cssText !== fresh.style.cssText) live.style.cssText = fresh.style.cssText;
}

function identity(node) {
  return `${node.nodeName} ${node.id ?? ""} ${node.patchKey ?? ""}`;
}

function patchChildren(live, fresh) {
  const present = new Map();
  for (const child of live.childNodes) listIn(present, identity(child)).push(child);
  const wanted = [...fresh.childNodes].map((child) => {
    const kept = present.get(identity(child))?.shift();
    if (kept) patch(kept, child);
    return kept ?? child;
  });
  for (const left of present.values()) for (const child of left) child.remove();
  let next = live.firstChild;
  for (const child of wanted) {
    if (child === next) next = next.nextSibling;
    else live.insertBefore(child, next);
  }
}

function listIn(map, name) {
  if (!map.has(name)) map.set(name, []);
  return map.get(name);
}

// Each of these remembers something that a change may disturb, and returns what restores it.

/** Moving an element drops its focus. */
function holdFocus() {
  const focused = document.activeElement;
  return () => {
    if (focused && focused !== document.activeElement && focused.isConnected) {
      focused.focus({ preventScroll: true });
    }
  };
}

function holdSelection() {
  const selection = document.getSelection();
  const { anchorNode, anchorOffset, focusNode, focusOffset } = selection;
  if (selection.isCollapsed) return () => {};
  return () => {
    if (!anchorNode.isConnected || !focusNode.isConnected) return;
    if (selection.anchorNode === anchorNode && selection.anchorOffset === anchorOffset
      && selection.focusNode === focusNode && selection.focusOffset === focusOffset) return;
    selection.setBaseAndExtent(anchorNode, Math.min(anchorOffset, lengthOf(anchorNode)),
      focusNode, Math.min(focusOffset, lengthOf(focusNode)));
  };
}

/** What the reader looks at stays where it is, also when rows appear above it. */
function holdScroll(parent) {
  if (window.scrollY === 0) return () => {};
  const top = (node) => node.getBoundingClientRect().top;
  const seen = [document.activeElement, ...parent.querySelectorAll("tr, li, h1, h2, pre")]
    .filter((node) => parent.contains(node) && node !== parent)
    .map((node) => ({ node, before: top(node) }))
    .filter(({ before }) => before >= 0 && before < window.innerHeight);
  return () => {
    const anchor = seen.find(({ node }) => node.isConnected);
    const moved = anchor ? top(anchor.node) - anchor.before : 0;
    if (Math.abs(moved) >= 1) window.scrollBy({ top: moved, behavior: "instant" });
  };
}

function lengthOf(node) {
  return node.nodeType === Node.TEXT_NODE ? node.length : node.childNodes.length;
}

/** Say something to those who listen to the page instead of looking at it. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}
