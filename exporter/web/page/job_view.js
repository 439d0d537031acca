// One job in full.

import { change, jobAddress, jobLink, link, textLink } from "./address.js";
import { html } from "./html.js";
import { badge, copyButton, heading, loading, notice, section, step, textBox } from "./parts.js";
import { counted, cut, firstLine, number, plain, short, visible } from "./text.js";
import { clock, duration, fullTime } from "./times.js";

/** @import { Address } from "./address.js" */
/** @import { Answers } from "./api.js" */
/** @import { Content } from "./html.js" */
/** @import { Source } from "./loader.js" */
/** @import { Context } from "./parts.js" */
/** @typedef {Answers["FullJob"]} Job */
/** @typedef {Answers["Relative"]} Relative a parent or a child */

const OUTCOMES = /** @type {const} */ (["processed", "unprocessed", "failed", "ignored"]);
const STATE_KINDS = new Map([
  ["failed", "bad"],
  ["completed", "good"],
  ["active", "good"],
  ["paused", "warn"],
]);

/** @param {Context} context */
export function jobView(context) {
  const { address, sources } = context;
  const source = sources.job;
  const job = source?.answer?.job;
  return html`
    ${back(address)}
    <div class="title">
      ${heading(["Job ", short(address.job, 200), job && [" ", stateBadge(job)]])}
      <span class="actions">
        ${copyButton("Copy id", () => address.job, { id: "copy-id" })}
        ${copyButton("Copy link", () => location.href, { id: "copy-link" })}
      </span>
    </div>
    ${source?.problem?.status === 404 && gone(source)}
    ${!job && !source?.problem && loading("the job")}
    ${job && details(context, job, source)}`;
}

/**
 * Shown while the job of a key is searched for, and if there is none.
 *
 * @param {Context} context
 */
export function keyView({ sources: { key: source } }) {
  const title = heading("A job");
  if (source?.problem?.status !== 404) return [title, loading("the job")];
  const message = cut(visible(source.problem.message), 400);
  const all = link({}, {}, "Show all queues");
  return [title, notice("warn", html`<strong>There is no such job. </strong>${message}. ${all}`)];
}

/** @param {Address} address */
function back(address) {
  const list = change(address, { job: "", logs: 0 });
  const text = ["← Back to the ", address.status, " jobs of ", short(address.queue)];
  return html`<p class="back">${link(list, { id: "back", "data-back": true }, text)}</p>`;
}

/** @param {Source<Answers["QueueJob"]>} source */
function gone({ answer, readAt }) {
  return notice(
    "warn",
    html`<strong>There is no such job. </strong>
      It was removed by retention or by hand, or its id is not written right. ${" "}
      ${answer && `Below is what was read at ${clock(readAt)}.`}`,
  );
}

/** @param {Job} job */
function stateBadge({ state }) {
  if (!state) return badge("in no list", "warn", "the job exists, but is in no list of its queue");
  return badge(state, STATE_KINDS.get(state));
}

/**
 * @param {Context} context
 * @param {Job} job
 * @param {Source<any> | undefined} source
 */
function details(context, job, source) {
  const part = (/** @type {string} */ id, /** @type {Content} */ content) =>
    section(source, { id }, content);
  const hasOtherError =
    job.error !== null && job.error !== undefined && job.error !== job.failedReason;
  return html`
    ${job.failedReason && part("reason", reason(job.failedReason, context))}
    ${part("facts", [html`<h2 class="unseen">Facts</h2>`, facts(context, job)])}
    ${job.stacktrace?.length > 0 && part("traces", traces(job.stacktrace, context))}
    ${part("data", json("Data", job.data, context))}
    ${part("return-value", json("Return value", job.returnValue, context))}
    ${hasOtherError && part("error", json("Error", job.error, context))}
    ${(job.parent || job.children) && part("flow", [sectionTitle("Flow"), flow(context, job)])}
    ${part("options", json("Options", job.options ?? {}, context))}
    ${part("logs", logs(context, job.logs))}`;
}

/**
 * @param {string} text
 * @param {Content} [more]
 */
function sectionTitle(text, more) {
  return html`<div class="title"><h2>${text}</h2>${more}</div>`;
}

/**
 * @param {string} text
 * @param {Context} context
 */
function reason(text, context) {
  const button = copyButton("Copy", () => text, { "aria-label": "Copy the reason" });
  return [sectionTitle("Reason", button), textBox(text, "Reason", "reason", context)];
}

/**
 * @param {Context} context
 * @param {Job} job
 */
function facts(context, job) {
  const { untilTaken, processing, total } = job.durations;
  /** @type {[string, Content][]} */
  const list = [
    ["Name", short(job.name, 300)],
    ["Added", fullTime(job.timestamp)],
    ["Started", fullTime(job.processedOn)],
    ["Finished", fullTime(job.finishedOn)],
    ["Waited", duration(untilTaken)],
    ["Run time", duration(processing)],
    ["Total", duration(total)],
    ["Attempts", attempts(job)],
    ["Stalled", job.stalledCount ? counted(job.stalledCount, "time") : "never"],
    ["Priority", job.priority ? number(job.priority) : "none"],
    ["Delay", job.delay ? duration(job.delay) : "none"],
    ["Progress", progress(job.progress)],
    ["Worker", job.worker ? short(job.worker, 300) : "–"],
    ["Ingestion source", ingestionSource(context.address, job.ingestionSourceId)],
  ];
  return html`<dl class="facts">${list.map(
    ([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`,
  )}</dl>`;
}

/**
 * @param {Address} address
 * @param {unknown} id
 */
function ingestionSource(address, id) {
  if (id === null || id === undefined) return "–";
  if (typeof id !== "string") return short(id, 300);
  const jobs = change(address, { job: "", logs: 0, group: "", text: id, page: 1 });
  const attributes = { "data-focus": "jobs", title: "All failed jobs of this source" };
  return textLink(jobs, attributes, short(id, 300));
}

/**
 * "3 of 5", or the part that is known.
 *
 * @param {Pick<Job, "attemptsMade" | "options">} job
 */
export function attempts({ attemptsMade, options }) {
  const allowed = /** @type {{attempts?: unknown} | null} */ (options)?.attempts;
  return typeof allowed === "number" ? `${attemptsMade} of ${allowed}` : `${attemptsMade ?? "–"}`;
}

/**
 * Numbers up to 100 are percentages; BullMQ allows anything else too.
 *
 * @param {unknown} value
 */
export function progress(value) {
  if (value === null || value === undefined || value === 0) return "none";
  if (typeof value === "number") return value >= 0 && value <= 100 ? `${value} %` : `${value}`;
  return short(value, 1000);
}

/**
 * The newest first and open. They are distinguished by age, so that a new one opens by itself.
 *
 * @param {unknown[]} stacktrace
 * @param {Context} context
 */
function traces(stacktrace, context) {
  const total = stacktrace.length;
  const title = total === 1 ? "Stack trace" : `Stack traces (${total})`;
  const boxes = stacktrace.map(asText).map((trace, at) => {
    const isNewest = at === total - 1;
    const which = `${at + 1} of ${total}${isNewest ? ", the newest" : ""}: `;
    const label = `Stack trace ${at + 1}`;
    return html`<details key=${at} class="trace" ref=${isNewest ? openOnce : undefined}>
      <summary>${total > 1 && which}${short(traceMessage(trace), 160)}</summary>
      ${copyButton("Copy", () => trace, { "aria-label": `Copy stack trace ${at + 1}` })}
      ${textBox(trace, label, `trace ${at}`, context)}
    </details>`;
  });
  return [sectionTitle(title), boxes.reverse()];
}

/**
 * Open details when they come to the screen. After that it is for the reader to decide; as an
 * attribute, it would be set again when a newer stack trace comes.
 *
 * @param {HTMLDetailsElement | null} details
 */
function openOnce(details) {
  if (details) details.open = true;
}

/**
 * Applications also write values other than texts: objects, numbers, null.
 *
 * @param {unknown} value
 */
function asText(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

/**
 * The line of a stack trace that says what happened: in Python it is the last one.
 *
 * @param {string} text
 */
export function traceMessage(text) {
  if (!text.startsWith("Traceback ")) return firstLine(text);
  return text.trimEnd().slice(-1000).split("\n").at(-1) ?? "";
}

/**
 * @param {string} label
 * @param {unknown} value
 * @param {Context} context
 */
function json(label, value, context) {
  if (value === undefined || value === null) {
    return [sectionTitle(label), html`<p class="quiet">none</p>`];
  }
  const text = JSON.stringify(value, null, 2);
  const button = copyButton("Copy", () => text, {
    "aria-label": `Copy the ${label.toLowerCase()}`,
  });
  return [sectionTitle(label, button), textBox(text, label, label, context)];
}

/**
 * @param {Context} context
 * @param {Job} job
 */
function flow({ address }, { parent, children, state }) {
  return html`<dl class="facts">
    ${parent && html`<div><dt>Parent</dt><dd>${relative(address, parent)}</dd></div>`}
    ${children && family(address, children, state)}
  </dl>`;
}

/**
 * @param {Address} address
 * @param {NonNullable<Job["children"]>} children
 * @param {Job["state"]} state of their parent
 */
function family(address, { counts, jobs, complete }, state) {
  const outcomes = OUTCOMES.filter((name) => counts[name])
    .map((name) => `${number(counts[name])} ${name}`)
    .join(", ");
  const items = jobs.map(
    (child) => html`<li key=${`${child.queue} ${child.encodedId ?? child.id}`}>
      ${relative(address, child)} ${childBadge(child)}${childReason(child)}
    </li>`,
  );
  return html`<div class="whole">
    <dt>Children: ${outcomes || "none"}</dt>
    <dd>
      ${state === "waiting-children" && stuckNotices(jobs)}
      <ul class="children">${items}</ul>
      ${!complete && notice("quiet", "There are more children than are listed here.")}
    </dd>
  </div>`;
}

/**
 * Children for which the parent waits forever unless somebody intervenes.
 *
 * @param {Relative[]} children
 */
export function stuckNotices(children) {
  const pending = children.filter(({ outcome }) => outcome === "unprocessed");
  const failed = pending.filter(({ state }) => state === "failed").length;
  const removed = pending.filter(({ state }) => state === "removed").length;
  const retried = failed === 1 ? "it is" : "they are";
  const was = removed === 1 ? "was" : "were";
  return html`
    ${
      failed > 0 &&
      notice(
        "bad",
        html`<strong>${counted(failed, "child", "children")} failed. </strong>
          This job waits until ${retried} retried.`,
      )
    }
    ${
      removed > 0 &&
      notice(
        "bad",
        html`<strong>${counted(removed, "child", "children")} ${was} removed. </strong>
          This job will never continue by itself.`,
      )
    }`;
}

/**
 * A child's state in its own queue says more than "unprocessed".
 *
 * @param {Relative} child
 */
function childBadge({ outcome, state }) {
  if (outcome === "unprocessed" && state) {
    return badge(state, state === "removed" ? "bad" : STATE_KINDS.get(state));
  }
  return badge(outcome, outcome === "failed" ? "bad" : "");
}

/** @param {Relative} child */
function childReason({ failedReason }) {
  if (!failedReason) return null;
  const text = short(firstLine(failedReason), 200);
  return html`<span class="muted" title=${cut(visible(failedReason), 400)}>${" "}${text}</span>`;
}

/**
 * @param {Address} address
 * @param {Relative} job
 */
function relative(address, { queue, id, encodedId, prefix }) {
  const place = { queue, prefix: prefix ?? address.prefix, target: address.target };
  const text = [short(queue, 100), " / ", short(id, 100)];
  return jobLink(jobAddress(place, { id, encodedId }), {}, text);
}

/**
 * @param {Context} context
 * @param {Job["logs"]} found
 */
function logs(context, found) {
  if (!found?.total) return [sectionTitle("Logs"), html`<p class="quiet">none</p>`];
  const { page, totalPages, total, lines } = found;
  const text = lines.map(plain).join("\n");
  const button = copyButton("Copy", () => text, { "aria-label": "Copy these log lines" });
  const to = (/** @type {number} */ logs) => change(context.address, { logs });
  return html`
    ${sectionTitle(`Logs (${counted(total, "line")})`, button)}
    ${textBox(text, "Log lines", `logs ${page}`, context)}
    ${
      totalPages > 1 &&
      html`<nav class="pages" aria-label="Pages of the logs">
        ${step("logs-previous", "Earlier", page > 1 && to(page - 1), "keep")}
        <span>Page ${number(page)} of ${number(totalPages)}</span>
        ${step("logs-next", "Later", page < totalPages && to(page + 1), "keep")}
      </nav>`
    }`;
}
