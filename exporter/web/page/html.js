// Draws the page with Preact and htm's templates. Other modules import both from here.

import htm from "./vendor/htm.js";
import { Fragment, h, render } from "./vendor/preact.js";

/** @typedef {import("./vendor/preact.js").ComponentChildren} Content What can be put into a template. */

/**
 * html`<a href=${href} ...${attributes}>${children}</a>`
 *
 * Whatever is put in becomes text or an attribute, never markup, so nothing that came from a job
 * is read as markup. Lists are put in as arrays whose elements have a `key`. `null`, `undefined`
 * and `false` show nothing and keep their place: elements next to them stay the same elements.
 * An attribute that is absent at times is `undefined`, for Preact writes null as an empty text.
 *
 * @type {(strings: TemplateStringsArray, ...values: unknown[]) => Content}
 */
export const html = htm.bind(h);

/**
 * Content that shares no element with that of another key: whatever was typed, opened or scrolled
 * in the one is not so in the other.
 *
 * @param {string} key
 * @param {Content} content
 */
export function separate(key, content) {
  return h(Fragment, { key }, content);
}

export { render };
