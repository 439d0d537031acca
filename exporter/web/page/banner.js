// The banner above the view, shown when something is wrong with the answers.

import { html } from "./html.js";
import { cut, visible } from "./text.js";
import { clock } from "./times.js";

/** @import { Problem, Source } from "./loader.js" */

/**
 * The banner's text for the problems of the sources, or null. A 404 is shown by the view.
 *
 * @param {Source<any>[]} sources
 * @param {() => void} askAgain
 */
export function banner(sources, askAgain) {
  const problems = sources.flatMap(({ problem }) => problem ?? []).filter(isForAll);
  const [problem] = problems;
  if (!problem) return null;
  const waits = problem.status === 429;
  const isFinal = problem.status === 400;
  const until = Math.max(...problems.map((each) => each.until));
  return html`<div class="banner ${waits ? "warn" : "bad"}">
    <span id="banner-text">${cause(problem)}${since(sources)}</span>
    ${
      // The seconds would be read out every second.
      !isFinal &&
      html`<span id="countdown" class="muted" aria-hidden="true">${countdown(until)}</span>`
    }
    ${
      !waits &&
      !isFinal &&
      html`<button type="button" id="ask-again" onclick=${askAgain}>Try now</button>`
    }
  </div>`;
}

/** @param {Problem} problem */
function isForAll({ status }) {
  return status !== 404;
}

/**
 * The age of the answers on the screen.
 *
 * @param {Source<any>[]} sources
 */
function since(sources) {
  const old = sources
    .filter(({ problem }) => problem && isForAll(problem))
    .filter(({ answer, outdated }) => answer && !outdated)
    .map(({ readAt }) => readAt);
  return old.length ? `; this is what was read at ${clock(Math.min(...old))}.` : ".";
}

/** @param {Problem} problem */
function cause({ status, message, busy }) {
  const said = cut(visible(message), 300).replace(/\.$/, "");
  if (status === 429) return "Too many requests; the page waits before it asks again";
  if (busy) return said;
  if (status === 503) return "Redis cannot be reached";
  if (status === 0) return `The exporter cannot be reached${said ? ` (${said})` : ""}`;
  if (status === 400) return `The exporter does not accept this request${said && `: ${said}`}`;
  return `The exporter answered with the error ${status}${said && `: ${said}`}`;
}

/** @param {number} until in epoch milliseconds */
function countdown(until) {
  const seconds = Math.max(0, Math.ceil((until - Date.now()) / 1000));
  return seconds ? `next attempt in ${seconds} s` : "asking…";
}
