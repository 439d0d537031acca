// The line above the view that says when something is wrong with the answers.

import { element } from "./dom.js";
import { clock } from "./times.js";
import { visible, cut } from "./text.js";

/** What the banner says of the problems of the sources, or null. */
export function banner(sources, askAgain) {
  const troubled = Object.values(sources).filter(({ problem }) => problem
    && problem.status !== 404);
  if (!troubled.length) return null;
  const { problem } = troubled[0];
  const shown = troubled.filter(({ answer, outdated }) => answer && !outdated);
  const readAt = shown.length && Math.min(...shown.map((source) => source.readAt));
  const since = readAt ? `; this is what was read at ${clock(readAt)}.` : ".";
  const waits = problem.status === 429;
  const final = problem.status === 400;
  return element("div", { class: `banner ${waits ? "warn" : "bad"}` },
    element("span", { id: "banner-text" }, `${cause(problem)}${since}`),
    // The seconds would be read out every second.
    !final && element("span", { id: "countdown", class: "muted", "aria-hidden": "true",
      "data-until": Math.max(...troubled.map((source) => source.problem.until)) },
    countdown(problem.until)),
    !waits && !final && element("button", { type: "button", id: "ask-again", onclick: askAgain },
      "Try now"));
}

function cause({ status, message, busy }) {
  const said = cut(visible(message ?? ""), 300).replace(/\.$/, "");
  if (status === 429) return "Too many requests; the page waits before it asks again";
  if (busy) return said;
  if (status === 503) return "Redis cannot be reached";
  if (status === 0) return `The exporter cannot be reached${said ? ` (${said})` : ""}`;
  if (status === 400) return `The exporter does not accept this request${said && `: ${said}`}`;
  return `The exporter answered with the error ${status}${said && `: ${said}`}`;
}

export function countdown(until) {
  const seconds = Math.max(0, Math.ceil((until - Date.now()) / 1000));
  return seconds ? `next attempt in ${seconds} s` : "asking…";
}
