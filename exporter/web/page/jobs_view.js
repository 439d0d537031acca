// The jobs of one status of a queue: filters, table, pages.

import { change, jobLink, jobParts, link, unfiltered } from "./address.js";
import { PER_PAGE } from "./api.js";
import { element } from "./dom.js";
import { followRow, notice, section, table } from "./parts.js";
import { counted, cut, firstLine, number, short, visible } from "./text.js";
import { time } from "./times.js";

const APPLY_AFTER = 600;
const ENDED = ["failed", "completed"];
let typing;

export function jobsSection(context) {
  const { address, sources: { jobs: source } } = context;
  return section(source, { id: "jobs-section", "aria-labelledby": "jobs-heading" },
    element("div", { class: "title" },
      element("h2", { id: "jobs-heading", tabindex: "-1" }, title(address)),
      element("span", { class: "muted small" },
        element("span", { id: "range" }, range(address, source)), " ", otherOrder(address))),
    address.group && groupChip(context),
    filters(context),
    source.answer && list(context, source));
}

function title({ status, group }) {
  const what = status[0].toUpperCase() + status.slice(1);
  return group ? `${what} jobs of one group` : `${what} jobs`;
}

function otherOrder(address) {
  const newest = address.order === "desc";
  return link(change(address, { order: newest ? "asc" : "desc", page: 1 }),
    { id: "order", "data-focus": "keep" }, newest ? "Oldest first" : "Newest first");
}

function groupChip({ address, sources }) {
  const group = sources.groups?.answer?.groups
    .find(({ fingerprint }) => fingerprint === address.group);
  return element("p", { id: "group-filter", class: "chip" }, "Only: ",
    group ? short(firstLine(group.reason), 160) : element("code", {}, short(address.group)),
    " ", link(change(address, { group: "", page: 1 }),
      { id: "clear-group", class: "clear", "data-focus": "jobs" }, "Show all failed jobs"));
}

function filters(context) {
  const { address, names } = context;
  const field = (name, label, attributes) => element("div", { class: "field", key: name },
    element("label", { for: `filter-${name}` }, label),
    element("input", { id: `filter-${name}`, name, type: "search", autocomplete: "off",
      spellcheck: "false", value: address[name], ...attributes }));
  const filtered = address.name || address.text;
  return element("form", { id: "filters", class: "filters", role: "search",
    "aria-label": "Filter the jobs", oninput: (event) => later(event.currentTarget, context),
    onchange: (event) => apply(event.currentTarget, context),
    onsubmit: (event) => { event.preventDefault(); apply(event.currentTarget, context); } },
  field("name", "Job name", { list: "names", placeholder: "exact name" }),
  element("datalist", { id: "names" },
    [...names].sort().map((name) => element("option", { key: name, value: name }))),
  field("text", "Text", { placeholder: "in id, name, reason, data, return value" }),
  element("button", { type: "submit" }, "Filter"),
  filtered && link(change(address, { name: "", text: "", page: 1 }),
    { id: "clear-filters", class: "clear", "data-focus": "jobs" }, "Clear filters"));
}

function later(form, context) {
  clearTimeout(typing);
  typing = setTimeout(() => apply(form, context), APPLY_AFTER);
}

/** What was typed but not applied yet belongs to a view that is being left. */
export function forgetTyping() {
  clearTimeout(typing);
}

function apply(form, { address, go }) {
  clearTimeout(typing);
  const name = form.elements.name.value;
  const text = form.elements.text.value.trim();
  if (name === address.name && text === address.text) return;
  // One step of the history for the whole of a filter, not one for every letter.
  const replace = Boolean(address.name || address.text);
  go(change(address, { name, text, page: 1 }), { focus: "keep", replace });
}

/** "26 to 50 of 812", as far as it is known. */
function range(address, { answer, outdated }) {
  if (!answer || outdated) return "";
  const { jobs, pagination, missing = 0 } = answer;
  const { totalJobs } = pagination;
  const listed = jobs.length + missing;
  if (!listed) return totalJobs ? `none of ${number(totalJobs)}` : "";
  const first = (address.page - 1) * (pagination.limit ?? PER_PAGE) + 1;
  const total = totalJobs === null ? "" : ` of ${number(totalJobs)}`;
  return `${number(first)} to ${number(first + listed - 1)}${total}`;
}

function list(context, { answer, outdated }) {
  const { address } = context;
  const { search } = answer;
  const partly = search && !search.complete && notice("warn", "The time limit ended the search: ",
    `it looked at ${number(search.seen)} jobs, not at all of them.`);
  if (!answer.jobs.length) {
    return [partly, withoutData(answer) ?? nothing(address, outdated), pages(address, answer)];
  }
  return [partly, withoutData(answer), jobTable(address, answer.jobs), pages(address, answer)];
}

/** A notice on jobs that are listed but have no data. */
function withoutData({ jobs, missing, maxmemoryPolicy }) {
  if (!missing) return null;
  const evicts = maxmemoryPolicy && maxmemoryPolicy !== "noeviction";
  return element("p", { id: "missing", class: "notice bad" },
    element("strong", {}, `${number(missing)} of ${counted(jobs.length + missing, "job")} ${
      missing === 1 ? "has" : "have"} no data (evicted or deleted). `),
    evicts && `Redis evicts keys when it is full (maxmemory-policy ${maxmemoryPolicy}); `
      + "BullMQ needs noeviction.");
}

function nothing(address, outdated) {
  if (outdated) return element("p", { class: "quiet", role: "status" }, "Loading the jobs…");
  if (address.page > 1) return element("p", { class: "quiet" }, "There are no jobs on this page. ",
    link(change(address, { page: 1 }), { "data-focus": "jobs" }, "Go to the first page"));
  if (!address.name && !address.text && !address.group) {
    return element("p", { class: "quiet" }, `There are no ${address.status} jobs.`);
  }
  return element("p", { class: "quiet" }, `No ${address.status} job fits. `,
    address.name && ["The name has to be the whole name: ", short(address.name), ". "],
    link(unfiltered(address), { "data-focus": "jobs" }, "Show all"));
}

function jobTable(address, jobs) {
  const reasons = address.status === "failed" || jobs.some(({ failedReason }) => failedReason);
  const ended = ENDED.includes(address.status);
  const active = address.status === "active";
  const columns = [
    { label: "Id", kind: "id", cell: (job) => jobLink(change(address, jobParts(job)),
      { title: cut(visible(job.id), 500) }, short(job.id, 48)) },
    { label: "Name", kind: "name", cell: ({ name }) => short(name, 48) },
    reasons && { label: "Reason", kind: "reason", cell: reason },
    { label: "Attempts", kind: "number", cell: ({ attemptsMade }) => attemptsMade ?? "–" },
    { label: "Added", kind: "time", cell: ({ timestamp }) => time(timestamp) },
    active && { label: "Taken", kind: "time", cell: ({ processedOn }) => time(processedOn) },
    ended && { label: "Finished", kind: "time", cell: ({ finishedOn }) => time(finishedOn) },
  ].filter(Boolean);
  return element("div", { class: "wide" }, table({ id: "jobs", columns,
    caption: `Jobs, ${address.order === "desc" ? "newest" : "oldest"} first, page ${address.page}`,
    rows: jobs.map((job) => ({ key: job.encodedId ?? job.id, className: "follow", onclick: followRow,
      cells: columns.map(({ cell }) => cell(job)) })) }));
}

function reason({ failedReason }) {
  if (!failedReason) return element("span", { class: "none" }, "–");
  return element("span", { title: cut(visible(failedReason), 400) },
    short(firstLine(failedReason), 200));
}

function pages(address, { jobs, pagination }) {
  const { totalPages } = pagination;
  const { page } = address;
  const isMore = totalPages === null ? jobs.length >= pagination.limit : page < totalPages;
  if (page === 1 && !isMore) return null;
  const step = (id, label, to, possible) => (possible
    ? link(change(address, { page: to }), { id, "data-focus": "jobs", class: "button" }, label)
    : element("span", { id, class: "button", "aria-disabled": "true", role: "link" }, label));
  return element("nav", { id: "pages", class: "pages", "aria-label": "Pages" },
    step("page-first", "First", 1, page > 1),
    step("page-previous", "Previous", page - 1, page > 1),
    element("span", { id: "page-now" }, `Page ${number(page)}`,
      totalPages !== null && ` of ${number(totalPages)}`),
    step("page-next", "Next", page + 1, isMore),
    totalPages !== null && step("page-last", "Last", totalPages, isMore));
}
