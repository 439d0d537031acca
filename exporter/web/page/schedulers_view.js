// The schedulers of a queue: what they repeat, when they last ran and when they run next.

import { html } from "./html.js";
import { badge, none, notice, section, table } from "./parts.js";
import { number, short } from "./text.js";
import { duration, time } from "./times.js";

/** @import { Answers } from "./api.js" */
/** @import { Source } from "./loader.js" */

const COLUMNS = [
  { label: "Scheduler", kind: "name" },
  { label: "Job name", kind: "name" },
  { label: "Pattern", kind: "pattern" },
  { label: "Time zone", kind: "zone" },
  { label: "Last run", kind: "time" },
  { label: "Next run", kind: "time" },
];

/**
 * Returns null for a queue without schedulers: most have none.
 *
 * @param {Source<Answers["Schedulers"]> | undefined} source
 */
export function schedulersSection(source) {
  const answer = source?.answer;
  if (!answer?.schedulers.length) return null;
  const total = answer.pagination.totalSchedulers ?? answer.schedulers.length;
  const more = total - answer.schedulers.length;
  const rows = answer.schedulers.map(row);
  const caption = "Schedulers, the next first";
  return section(
    source,
    { id: "schedulers-section", "aria-labelledby": "schedulers-heading" },
    html`
      <h2 id="schedulers-heading">Schedulers (${number(total)})</h2>
      <div class="wide">${table({ id: "schedulers", caption, columns: COLUMNS, rows })}</div>
      ${more > 0 && notice("quiet", `${number(more)} more are not listed.`)}`,
  );
}

/** @param {Answers["Scheduler"]} scheduler */
function row(scheduler) {
  const { key, name, pattern, tz, lastRun } = scheduler;
  return {
    key,
    cells: [
      short(key, 100),
      name === null ? "–" : short(name, 60),
      pattern ? html`<code>${short(pattern, 60)}</code>` : interval(scheduler),
      tz ? short(tz, 60) : none("–"),
      lastRun === null ? none("unknown") : time(lastRun),
      nextRun(scheduler),
    ],
  };
}

/** @param {Answers["Scheduler"]} scheduler */
function interval({ every }) {
  return every ? `every ${duration(every)}` : none("–");
}

/** @param {Answers["Scheduler"]} scheduler */
function nextRun({ nextRun: at, overdue, ended }) {
  if (ended) return badge("ended", "", "it no longer runs, because of its limit or end date");
  return [time(at), overdue && [" ", badge("overdue", "bad", "no worker has taken its job yet")]];
}
