// The schedulers of a queue: what they repeat, when they last ran and when they run next.

import { element } from "./dom.js";
import { badge, notice, section, table } from "./parts.js";
import { number, short } from "./text.js";
import { duration, time } from "./times.js";

const COLUMNS = [
  { label: "Scheduler", kind: "name" }, { label: "Job name", kind: "name" },
  { label: "Pattern", kind: "pattern" }, { label: "Time zone", kind: "zone" },
  { label: "Last run", kind: "time" }, { label: "Next run", kind: "time" },
];

/** Returns null for a queue without schedulers: most have none. */
export function schedulersSection(source) {
  const { answer } = source ?? {};
  if (!answer?.schedulers?.length) return null;
  const { totalSchedulers } = answer.pagination;
  const more = totalSchedulers - answer.schedulers.length;
  return section(source, { id: "schedulers-section", "aria-labelledby": "schedulers-heading" },
    element("h2", { id: "schedulers-heading" }, `Schedulers (${number(totalSchedulers)})`),
    element("div", { class: "wide" }, table({ id: "schedulers", caption: "Schedulers, the next first",
      columns: COLUMNS, rows: answer.schedulers.map(row) })),
    more > 0 && notice("quiet", `${number(more)} more are not listed.`));
}

function row(scheduler) {
  const { key, name, pattern, tz, lastRun } = scheduler;
  return { key, cells: [
    short(key, 100), name === null ? "–" : short(name, 60),
    pattern ? element("code", {}, short(pattern, 60)) : interval(scheduler),
    tz ? short(tz, 60) : element("span", { class: "none" }, "–"),
    lastRun === null ? element("span", { class: "none" }, "unknown") : time(lastRun),
    nextRun(scheduler),
  ] };
}

function interval({ every }) {
  return every ? `every ${duration(every)}` : element("span", { class: "none" }, "–");
}

function nextRun({ nextRun: at, overdue, ended }) {
  if (ended) return badge("ended", "", "it no longer runs, because of its limit or end date");
  return [time(at), overdue && [" ", badge("overdue", "bad", "no worker has taken its job yet")]];
}
