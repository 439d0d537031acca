// The browser's history, with the scroll position and focus of each entry.

/** @typedef {{top: number, focused?: string | null}} Place how far down, and the link with the focus */

export class History {
  /** @type {Map<string, Place>} by step */
  #places = new Map();
  /** @type {Place | null} to be put back as soon as the content is there */
  #wanted = null;
  #step;

  constructor() {
    // The content is drawn later than the browser would scroll.
    history.scrollRestoration = "manual";
    this.#step = history.state?.step ?? this.#mark();
  }

  #mark() {
    const step = crypto.getRandomValues(new Uint32Array(2)).join("-");
    history.replaceState({ ...history.state, step }, "");
    return step;
  }

  /**
   * Add a step, or replace the present one.
   *
   * @param {string} href
   * @param {boolean} replace
   */
  go(href, replace) {
    this.#wanted = null;
    if (replace) {
      history.replaceState({ ...history.state }, "", href);
      return;
    }
    this.#leave();
    const from = location.search || "./";
    history.pushState({ from }, "", href === "./" ? location.pathname : href);
    this.#step = this.#mark();
  }

  /** The browser has gone back or forward. */
  arrive() {
    this.#leave();
    this.#step = history.state?.step ?? this.#mark();
    this.#wanted = this.#places.get(this.#step) ?? { top: 0 };
  }

  /**
   * Whether going back one step leads to this address.
   *
   * @param {string} href
   */
  cameFrom(href) {
    return history.state?.from === href;
  }

  #leave() {
    const focused = document.activeElement?.getAttribute("href");
    this.#places.set(this.#step, { top: window.scrollY, focused });
  }

  /** Scroll to, and focus, what was left by going on. */
  putBack() {
    if (!this.#wanted) return;
    const { top, focused } = this.#wanted;
    this.#wanted = null;
    if (focused) {
      /** @type {HTMLElement | null} */
      const link = document.querySelector(`#main a[href="${CSS.escape(focused)}"]`);
      link?.focus({ preventScroll: true });
    }
    window.scrollTo(0, top);
  }
}

/**
 * The page handles plain clicks on links to views; the browser handles all others.
 *
 * @param {(link: HTMLAnchorElement) => void} follow
 */
export function followLinks(follow) {
  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    /** @type {HTMLAnchorElement | null | undefined} */
    const link = target?.closest("a[data-view]");
    if (!link || event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    follow(link);
  });
}
