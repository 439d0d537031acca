// One job in full.

import { change, jobAddress, jobLink, link, textLink } from "./address.js";
import { badge, copyButton, heading, loading, notice, section, textBox } from "./parts.js";
import { element } from "./dom.js";
import { counted, cut, firstLine, number, plain, short, visible } from "./text.js";
import { clock, duration, fullTime } from "./times.js";

const OUTCOMES = ["processed", "unprocessed", "failed", "ignored"];
const STATE_KINDS = { failed: "bad", completed: "good", active: "good", paused: "warn" };

export function jobView(context) {
  const { address, sources: { job: source } } = context;
  const job = source.answer?.job;
  return [
    back(address),
    element("div", { class: "title" },
      heading("Job ", short(address.job, 200), job && [" ", stateBadge(job)]),
      element("span", { class: "actions" },
        copyButton("Copy id", () => address.job, { id: "copy-id" }),
        copyButton("Copy link", () => location.href, { id: "copy-link" }))),
    source.problem?.status === 404 && gone(source),
    !job && !source.problem && loading("the job"),
    job && details(context, job, source),
  ];
}

/** While the job of a key is looked for, and where there is none. */
export function keyView({ sources: { key: source } }) {
  if (source.problem?.status !== 404) return [heading("A job"), loading("the job")];
  return [heading("A job"), notice("warn", element("strong", {}, "There is no such job. "),
    cut(visible(source.problem.message), 400), ". ", link({}, {}, "Show all queues"))];
}

function back(address) {
  return element("p", { class: "back" }, link(change(address, { job: "", logs: 0 }),
    { id: "back", "data-back": true }, "← Back to the ", address.status, " jobs of ",
    short(address.queue)));
}

function gone({ answer, readAt }) {
  return notice("warn", element("strong", {}, "There is no such job. "),
    "It was removed by retention or by hand, or its id is not written right. ",
    answer && `Below is what was read at ${clock(readAt)}.`);
}

function stateBadge({ state }) {
  if (!state) return badge("in no list", "warn", "the job exists, but is in no list of its queue");
  return badge(state, STATE_KINDS[state] ?? "");
}

function details(context, job, source) {
  // With the id of the job as key, another job does not inherit what is open or scrolled here.
  const part = (id, ...children) => section(source, { id, key: job.id }, ...children);
  return [
    job.failedReason && part("reason", sectionTitle("Reason",
      copyButton("Copy", () => job.failedReason, { "aria-label": "Copy the reason" })),
    textBox(job.failedReason, "Reason", "reason", context)),
    part("facts", element("h2", { class: "unseen" }, "Facts"), facts(context, job)),
    job.stacktrace?.length > 0 && part("traces", sectionTitle(job.stacktrace.length === 1
      ? "Stack trace" : `Stack traces (${job.stacktrace.length})`), traces(job, context)),
    part("data", ...json("Data", job.data, context)),
    part("return-value", ...json("Return value", job.returnValue, context)),
    job.error !== null && job.error !== undefined && job.error !== job.failedReason
      && part("error", ...json("Error", job.error, context)),
    (job.parent || job.children) && part("flow", sectionTitle("Flow"), flow(context, job)),
    part("options", ...json("Options", job.options ?? {}, context)),
    part("logs", ...logs(context, job)),
  ];
}

function sectionTitle(text, ...more) {
  return element("div", { class: "title" }, element("h2", {}, text), ...more);
}

function facts(context, job) {
  const spans = job.durations ?? {};
  const list = [
    ["Name", short(job.name, 300)],
    ["Added", fullTime(job.timestamp)],
    ["Taken", fullTime(job.processedOn)],
    ["Finished", fullTime(job.finishedOn)],
    ["Waited", duration(spans.untilTaken)],
    ["Worked on", duration(spans.processing)],
    ["In all", duration(spans.total)],
    ["Attempts", attempts(job)],
    ["Stalled", job.stalledCount ? counted(job.stalledCount, "time") : "never"],
    ["Priority", job.priority ? number(job.priority) : "none"],
    ["Delay", job.delay ? duration(job.delay) : "none"],
    ["Progress", progress(job.progress)],
    ["Worker", job.worker ? short(job.worker, 300) : "–"],
    ["Ingestion source", source(context.address, job)],
  ];
  return element("dl", { class: "facts" }, list.map(([name, value]) => element("div",
    { key: name }, element("dt", {}, name), element("dd", {}, value))));
}

function source(address, { ingestionSourceId: id }) {
  if (id === null || id === undefined) return "–";
  if (typeof id !== "string") return short(id, 300);
  return textLink(change(address, { job: "", logs: 0, group: "", text: id, page: 1 }),
    { "data-focus": "jobs", title: "All failed jobs of this source" }, short(id, 300));
}

function attempts({ attemptsMade, options }) {
  const allowed = options?.attempts;
  return typeof allowed === "number" ? `${attemptsMade} of ${allowed}` : `${attemptsMade ?? "–"}`;
}

function progress(value) {
  if (value === null || value === undefined || value === 0) return "none";
  if (typeof value === "number") return value >= 0 && value <= 100 ? `${value} %` : `${value}`;
  return short(value, 1000);
}

/** The newest first and open. They are distinguished by age, so that a new one opens by itself. */
function traces(job, context) {
  const { stacktrace } = job;
  return stacktrace.map(asText).map((trace, at) => {
    const newest = at === stacktrace.length - 1;
    const which = stacktrace.length === 1 ? "" : `${at + 1} of ${stacktrace.length}`
      + `${newest ? ", the newest" : ""}: `;
    const label = `Stack trace ${at + 1}`;
    return element("details", { key: at, class: "trace", open: newest },
      element("summary", {}, which, short(message(trace), 160)),
      copyButton("Copy", () => trace, { "aria-label": `Copy stack trace ${at + 1}` }),
      textBox(trace, label, `trace ${at}`, context));
  }).reverse();
}

/** Applications write other things than texts there, too: objects, numbers, null. */
function asText(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

/** The line of a stack trace that says what happened: in Python it is the last one. */
function message(text) {
  if (!text.startsWith("Traceback ")) return firstLine(text);
  return text.trimEnd().slice(-1000).split("\n").at(-1);
}

function json(label, value, context) {
  if (value === undefined || value === null) {
    return [sectionTitle(label), element("p", { class: "quiet" }, "none")];
  }
  const text = JSON.stringify(value, null, 2);
  return [
    sectionTitle(label, copyButton("Copy", () => text,
      { "aria-label": `Copy the ${label.toLowerCase()}` })),
    textBox(text, label, label, context),
  ];
}

function flow({ address }, { parent, children, state }) {
  return element("dl", { class: "facts" },
    parent && element("div", { key: "parent" }, element("dt", {}, "Parent"),
      element("dd", {}, relative(address, parent))),
    children && element("div", { key: "children", class: "whole" },
      element("dt", {}, "Children: ", OUTCOMES.filter((name) => children.counts?.[name])
        .map((name) => `${number(children.counts[name])} ${name}`).join(", ") || "none"),
      element("dd", {}, state === "waiting-children" && stuck(children.jobs ?? []),
        element("ul", { class: "children" }, (children.jobs ?? []).map((child) =>
          element("li", {}, relative(address, child), " ", childBadge(child), childReason(child)))),
      !children.complete && notice("quiet", "There are more children than are listed here."))));
}

/** Children for which the parent waits forever unless somebody intervenes. */
function stuck(children) {
  const pending = children.filter(({ outcome }) => outcome === "unprocessed");
  const failed = pending.filter(({ state }) => state === "failed").length;
  const removed = pending.filter(({ state }) => state === "removed").length;
  return [
    failed > 0 && notice("bad", element("strong", {}, `${counted(failed, "child", "children")} `
      + "failed. "), "This job waits until ", failed === 1 ? "it is" : "they are", " retried."),
    removed > 0 && notice("bad", element("strong", {}, `${counted(removed, "child", "children")} `
      + `${removed === 1 ? "was" : "were"} removed. `), "This job will never continue by itself."),
  ];
}

/** A child's state in its own queue says more than "unprocessed". */
function childBadge({ outcome, state }) {
  if (outcome === "unprocessed" && state) {
    const bad = state === "failed" || state === "removed";
    return badge(state, bad ? "bad" : STATE_KINDS[state] ?? "");
  }
  return badge(outcome, outcome === "failed" ? "bad" : "");
}

function childReason({ failedReason }) {
  if (!failedReason) return null;
  return element("span", { class: "muted", title: cut(visible(failedReason), 400) }, " ",
    short(firstLine(failedReason), 200));
}

function relative(address, { queue, id, encodedId, prefix }) {
  const to = jobAddress({ queue, prefix: prefix ?? address.prefix, target: address.target },
    { id, encodedId });
  return jobLink(to, {}, short(queue, 100), " / ", short(id, 100));
}

function logs({ address, ...context }, { logs: found }) {
  if (!found?.total) return [sectionTitle("Logs"), element("p", { class: "quiet" }, "none")];
  const { page, totalPages, total, lines } = found;
  const text = lines.map(plain).join("\n");
  const step = (label, id, to) => (to >= 1 && to <= totalPages
    ? link(change(address, { logs: to }), { id, class: "button", "data-focus": "keep" }, label)
    : element("span", { id, class: "button", "aria-disabled": "true", role: "link" }, label));
  return [
    sectionTitle(`Logs (${counted(total, "line")})`,
      copyButton("Copy", () => text, { "aria-label": "Copy these log lines" })),
    textBox(text, "Log lines", `logs ${page}`, context),
    totalPages > 1 && element("nav", { class: "pages", "aria-label": "Pages of the logs" },
      step("Earlier", "logs-previous", page - 1),
      element("span", {}, `Page ${number(page)} of ${number(totalPages)}`),
      step("Later", "logs-next", page + 1)),
  ];
}
