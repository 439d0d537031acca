// Steps through the history of the browser, each with the place on the page it was left at.

export class History {
  constructor() {
    // The content comes later than the browser would scroll.
    history.scrollRestoration = "manual";
    this.places = new Map();
    this.wanted = null;
    this.step = history.state?.step ?? this.#mark();
  }

  #mark() {
    const step = crypto.getRandomValues(new Uint32Array(2)).join("-");
    history.replaceState({ ...history.state, step }, "");
    return step;
  }

  /** Add a step, or replace the present one. */
  go(href, replace) {
    this.wanted = null;
    if (replace) {
      history.replaceState({ ...history.state }, "", href);
      return;
    }
    this.#leave();
    const from = location.search || "./";
    history.pushState({ from }, "", href === "./" ? location.pathname : href);
    this.step = this.#mark();
  }

  /** The browser has gone back or forward. */
  arrive() {
    this.#leave();
    this.step = history.state?.step ?? this.#mark();
    this.wanted = this.places.get(this.step) ?? { top: 0 };
  }

  /** Whether going back one step leads to this address. */
  cameFrom(href) {
    return history.state?.from === href;
  }

  #leave() {
    const focused = document.activeElement?.getAttribute?.("href");
    this.places.set(this.step, { top: window.scrollY, focused });
  }

  putBack() {
    if (!this.wanted) return;
    const { top, focused } = this.wanted;
    this.wanted = null;
    const link = focused && document.querySelector(`#main a[href="${CSS.escape(focused)}"]`);
    link?.focus({ preventScroll: true });
    window.scrollTo(0, top);
  }
}

/** Plain clicks on links to views are for the page; all others are for the browser. */
export function followLinks(follow) {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-view]");
    if (!link || event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    follow(link);
  });
}
