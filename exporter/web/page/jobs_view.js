// The jobs of one status of a queue: filters, table, pages.

import { change, jobLink, jobParts, link, unfiltered } from "./address.js";
import { PER_PAGE } from "./api.js";
import { html } from "./html.js";
import { foldOnPhones, followRow, none, notice, section, step, table } from "./parts.js";
import { counted, cut, firstLine, number, short, visible } from "./text.js";
import { time } from "./times.js";

/** @import { Address } from "./address.js" */
/** @import { Answers } from "./api.js" */
/** @import { Content } from "./html.js" */
/** @import { Source } from "./loader.js" */
/** @import { Context } from "./parts.js" */
/** @typedef {Answers["QueueJobs"]} Answer */
/** @typedef {Answers["Job"]} Job */
/** @typedef {Event & {currentTarget: HTMLFormElement}} FormEvent */

const APPLY_AFTER_MS = 600;
/** Jobs of a group that a phone shows at first. */
const FOLDED_JOBS = 5;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let typing;

/**
 * @param {Context} context
 * @param {Source<Answer>} source
 */
export function jobsSection(context, source) {
  const { address } = context;
  return section(
    source,
    { id: "jobs-section", "aria-labelledby": "jobs-heading" },
    html`
      <div class="title">
        <h2 id="jobs-heading" tabindex="-1">${title(address)}</h2>
        <span class="muted small">
          <span id="range">${range(address, source)}</span> ${otherOrder(address)}
        </span>
      </div>
      ${address.group && groupChip(context)}
      ${filters(context)}
      ${source.answer && list(context, source.answer, source.outdated)}`,
  );
}

/** @param {Address} address */
function title({ status, group }) {
  const what = `${status.charAt(0).toUpperCase()}${status.slice(1)}`;
  return group ? `${what} jobs of one group` : `${what} jobs`;
}

/** @param {Address} address */
function otherOrder(address) {
  const isNewestFirst = address.order === "desc";
  const other = change(address, { order: isNewestFirst ? "asc" : "desc", page: 1 });
  const text = isNewestFirst ? "Oldest first" : "Newest first";
  return link(other, { id: "order", "data-focus": "keep" }, text);
}

/** @param {Context} context */
function groupChip({ address, sources }) {
  const answers = [sources.groups?.answer, sources.group?.answer];
  const groups = answers.flatMap((answer) => answer?.groups ?? []);
  const group = groups.find(({ fingerprint }) => fingerprint === address.group);
  const name = group
    ? short(firstLine(group.reason), 160)
    : html`<code>${short(address.group)}</code>`;
  const all = change(address, { group: "", page: 1 });
  const attributes = { id: "clear-group", class: "clear", "data-focus": "jobs" };
  return html`<p id="group-filter" class="chip">
    Only: ${name} ${link(all, attributes, "Show all failed jobs")}
  </p>`;
}

/** @param {Context} context */
function filters(context) {
  const { address, names } = context;
  const options = [...names].sort();
  const typed = (/** @type {FormEvent} */ event) => applyLater(event.currentTarget, context);
  const applyNow = (/** @type {FormEvent} */ event) => apply(event.currentTarget, context);
  const submit = (/** @type {FormEvent} */ event) => {
    event.preventDefault();
    apply(event.currentTarget, context);
  };
  const clear = () => {
    const attributes = { id: "clear-filters", class: "clear", "data-focus": "jobs" };
    return link(change(address, { name: "", text: "", page: 1 }), attributes, "Clear filters");
  };
  return html`<form id="filters" class="filters" role="search" aria-label="Filter the jobs"
    oninput=${typed} onchange=${applyNow} onsubmit=${submit}>
    <div class="field">
      <label for="filter-name">Job name</label>
      <input id="filter-name" name="name" type="search" autocomplete="off" spellcheck=${false}
        list="names" placeholder="exact name" ref=${showing(address.name)} />
    </div>
    <datalist id="names">${options.map((name) => html`<option key=${name} value=${name} />`)}</datalist>
    <div class="field">
      <label for="filter-text">Text</label>
      <input id="filter-text" name="text" type="search" autocomplete="off" spellcheck=${false}
        placeholder="in id, name, reason, data, return value" ref=${showing(address.text)} />
    </div>
    <button type="submit">Filter</button>
    ${(address.name || address.text) && clear()}
  </form>`;
}

/**
 * A field that shows a value whenever it is drawn, except while somebody types in it: what is
 * being typed belongs to the person who types it.
 *
 * @param {string} value
 */
function showing(value) {
  return (/** @type {HTMLInputElement | null} */ input) => {
    if (input && input !== document.activeElement && input.value !== value) input.value = value;
  };
}

/**
 * @param {HTMLFormElement} form
 * @param {Context} context
 */
function applyLater(form, context) {
  clearTimeout(typing);
  typing = setTimeout(() => apply(form, context), APPLY_AFTER_MS);
}

/** What was typed but not applied yet belongs to a view that is being left. */
export function forgetTyping() {
  clearTimeout(typing);
}

/**
 * @param {HTMLFormElement} form
 * @param {Context} context
 */
function apply(form, { address, go }) {
  clearTimeout(typing);
  const typed = new FormData(form);
  const name = String(typed.get("name"));
  const text = String(typed.get("text")).trim();
  if (name === address.name && text === address.text) return;
  // One history entry for a whole filter, not one for every letter.
  const replace = Boolean(address.name || address.text);
  go(change(address, { name, text, page: 1 }), { focus: "keep", replace });
}

/**
 * "26 to 50 of 812", or the part that is known.
 *
 * @param {Pick<Address, "page">} address
 * @param {Pick<Source<Answer>, "answer" | "outdated">} source
 */
export function range({ page }, { answer, outdated }) {
  if (!answer || outdated) return "";
  const { jobs, pagination, missing = 0 } = answer;
  const { totalJobs, limit } = pagination;
  const listed = jobs.length + missing;
  if (!listed) return totalJobs ? `none of ${number(totalJobs)}` : "";
  const first = (page - 1) * (limit ?? PER_PAGE) + 1;
  const total = totalJobs === null ? "" : ` of ${number(totalJobs)}`;
  return `${number(first)} to ${number(first + listed - 1)}${total}`;
}

/**
 * @param {Context} context
 * @param {Answer} answer
 * @param {boolean} outdated
 */
function list(context, answer, outdated) {
  const { address } = context;
  const { jobs, search, missing } = answer;
  const isPartial = search && !search.complete;
  // The failures of one group resemble each other.
  const fold = foldOnPhones(context, {
    key: `${address.group} ${address.page} jobs`,
    shown: FOLDED_JOBS,
    rows: address.group ? jobs.length : 0,
    label: (more) => `Show ${counted(more, "more job", "more jobs")} of this page`,
  });
  return html`
    ${
      isPartial &&
      notice(
        "warn",
        `The time limit ended the search: it looked at ${number(search.seen)} jobs, not at all of them.`,
      )
    }
    ${missing ? withoutData(answer, missing) : null}
    ${!jobs.length && !missing && nothing(address, outdated)}
    ${jobs.length > 0 && html`<div class=${`wide ${fold.className}`}>${jobTable(address, jobs)}</div>`}
    ${fold.button}
    ${pages(address, answer)}`;
}

/**
 * A notice on jobs that are listed but have no data.
 *
 * @param {Answer} answer
 * @param {number} missing
 */
function withoutData({ jobs, maxmemoryPolicy }, missing) {
  const verb = missing === 1 ? "has" : "have";
  const which = `${number(missing)} of ${counted(jobs.length + missing, "job")} ${verb}`;
  const evicts = maxmemoryPolicy && maxmemoryPolicy !== "noeviction";
  return html`<p id="missing" class="notice bad">
    <strong>${which} no data (evicted or deleted). </strong>
    ${
      evicts &&
      `Redis evicts keys when it is full (maxmemory-policy ${maxmemoryPolicy}); BullMQ needs noeviction.`
    }
  </p>`;
}

/**
 * @param {Address} address
 * @param {boolean} outdated
 */
function nothing(address, outdated) {
  const { status, page, name, text, group } = address;
  if (outdated) return html`<p class="quiet" role="status">Loading the jobs…</p>`;
  if (page > 1) {
    const first = link(
      change(address, { page: 1 }),
      { "data-focus": "jobs" },
      "Go to the first page",
    );
    return html`<p class="quiet">There are no jobs on this page. ${first}</p>`;
  }
  if (!name && !text && !group) return html`<p class="quiet">There are no ${status} jobs.</p>`;
  const hint = name && ["The name has to be the whole name: ", short(name), ". "];
  const all = link(unfiltered(address), { "data-focus": "jobs" }, "Show all");
  return html`<p class="quiet">No matching ${status} jobs. ${hint}${all}</p>`;
}

/** @typedef {import("./parts.js").Column & {cell: (job: Job) => Content}} JobColumn */

/**
 * @param {Address} address
 * @param {Job[]} jobs
 */
function jobTable(address, jobs) {
  const columns = jobColumns(address, jobs);
  const order = address.order === "desc" ? "newest" : "oldest";
  const rows = jobs.map((job) => ({
    key: job.encodedId ?? job.id,
    className: "follow",
    onclick: followRow,
    cells: columns.map(({ cell }) => cell(job)),
  }));
  return table({
    id: "jobs",
    columns,
    rows,
    caption: `Jobs, ${order} first, page ${address.page}`,
  });
}

/**
 * @param {Address} address
 * @param {Job[]} jobs
 * @returns {JobColumn[]}
 */
function jobColumns(address, jobs) {
  const { status } = address;
  const hasReasons = status === "failed" || jobs.some(({ failedReason }) => failedReason);
  const id = (/** @type {Job} */ job) =>
    jobLink(
      change(address, jobParts(job)),
      { title: cut(visible(job.id), 500) },
      short(job.id, 48),
    );
  /** @type {(JobColumn | false)[]} */
  const columns = [
    { label: "Id", kind: "id", cell: id },
    { label: "Name", kind: "name", cell: ({ name }) => short(name, 48) },
    hasReasons && { label: "Reason", kind: "reason", cell: reason },
    { label: "Attempts", kind: "number", cell: ({ attemptsMade }) => attemptsMade ?? "–" },
    { label: "Added", kind: "time", cell: ({ timestamp }) => time(timestamp) },
    status === "active" && {
      label: "Started",
      kind: "time",
      cell: ({ processedOn }) => time(processedOn),
    },
    ["failed", "completed"].includes(status) && {
      label: "Finished",
      kind: "time",
      cell: ({ finishedOn }) => time(finishedOn),
    },
  ];
  return columns.filter((column) => column !== false);
}

/** @param {Job} job */
function reason({ failedReason }) {
  if (!failedReason) return none("–");
  const title = cut(visible(failedReason), 400);
  return html`<span title=${title}>${short(firstLine(failedReason), 200)}</span>`;
}

/**
 * @param {Address} address
 * @param {Answer} answer
 */
function pages(address, { jobs, pagination }) {
  const { totalPages, limit } = pagination;
  const { page } = address;
  const isMore = totalPages === null ? jobs.length >= limit : page < totalPages;
  if (page === 1 && !isMore) return null;
  const total = totalPages === null ? "" : ` of ${number(totalPages)}`;
  const to = (/** @type {number} */ other) => change(address, { page: other });
  return html`<nav id="pages" class="pages" aria-label="Pages">
    ${step("page-first", "First", page > 1 && to(1), "jobs")}
    ${step("page-previous", "Previous", page > 1 && to(page - 1), "jobs")}
    <span id="page-now">Page ${number(page)}${total}</span>
    ${step("page-next", "Next", isMore && to(page + 1), "jobs")}
    ${totalPages !== null && step("page-last", "Last", isMore && to(totalPages), "jobs")}
  </nav>`;
}
