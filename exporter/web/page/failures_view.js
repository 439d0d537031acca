// The failed jobs of a queue in groups of the same failure: what to look at first.

import { change, jobLink, jobParts, link, textLink, WINDOWS } from "./address.js";
import { followRow, loading, notice, section } from "./parts.js";
import { element } from "./dom.js";
import { counted, cut, firstLine, number, short, visible } from "./text.js";
import { time } from "./times.js";

const SHOWN_AT_FIRST = 6;
const NAMES_SHOWN = 3;
const WINDOW_NAMES = { "1h": "1 h", "24h": "24 h", "7d": "7 d", "": "all" };

export function failuresSection(context) {
  const { address, sources: { groups: source } } = context;
  return section(source, { id: "groups-section", "aria-labelledby": "groups-heading" },
    element("div", { class: "title" },
      element("h2", { id: "groups-heading" }, "Why they fail"),
      windowChoice(address)),
    content(context, source));
}

function windowChoice(address) {
  const choice = (window) => link(change(address, { window, group: "", page: 1 }), {
    key: window, id: `window-${window || "all"}`, "data-focus": "keep",
    "aria-current": window === address.window ? "true" : null }, WINDOW_NAMES[window] ?? window);
  const windows = WINDOWS.includes(address.window) ? WINDOWS : [address.window, ...WINDOWS];
  return element("nav", { id: "windows", class: "choice", "aria-label": "Failed in the last" },
    element("span", { class: "muted", "aria-hidden": "true" }, "failed in the last"),
    windows.map(choice));
}

function content(context, { answer, problem }) {
  if (!answer) {
    return problem ? notice("quiet", "The groups could not be read.") : loading("the groups");
  }
  const { address } = context;
  if (!answer.groups.length) return element("p", { class: "quiet" }, "No failed jobs",
    address.window ? ` in the last ${WINDOW_NAMES[address.window] ?? address.window}.` : ".");
  const chosen = answer.groups.filter(({ fingerprint }) => fingerprint === address.group);
  const all = context.opened.has("groups");
  const groups = chosen.length ? chosen : answer.groups.slice(0, all ? undefined : SHOWN_AT_FIRST);
  const largest = Math.max(...answer.groups.map((group) => group.count));
  return [
    element("p", { class: "muted small" }, summary(answer),
      (address.name || address.text) && " The filter below changes nothing here."),
    element("ol", { id: "groups", class: "groups" },
      groups.map((group) => groupItem(address, group, largest))),
    chosen.length ? allGroups(address, answer) : moreGroups(context, answer, groups),
  ];
}

function summary({ failed, groupsTotal, groups, seen, complete }) {
  const which = groupsTotal > groups.length ? `, the ${number(groups.length)} largest listed` : "";
  const partly = complete ? "" : `; saw only the newest ${number(seen)}, not the older ones`;
  return `${counted(failed, "failed job")} in ${counted(groupsTotal, "group")}${which}${partly}.`;
}

function allGroups(address, { groups }) {
  if (groups.length < 2) return null;
  return element("p", { class: "more" }, link(change(address, { group: "", page: 1 }),
    { "data-focus": "jobs" }, `Show all ${number(groups.length)} groups`));
}

function moreGroups(context, { groups }, shown) {
  const more = groups.length - shown.length;
  if (!more) return null;
  return element("p", { class: "more" }, element("button", { type: "button", id: "more-groups",
    onclick: () => context.open("groups") }, `Show ${counted(more, "more group", "more groups")}`));
}

function groupItem(address, group, largest) {
  const chosen = group.fingerprint === address.group;
  const to = change(address, { group: chosen ? "" : group.fingerprint, page: 1 });
  const share = `${Math.max(1, Math.round((group.count / largest) * 100))}%`;
  return element("li", { key: group.fingerprint, class: chosen ? "chosen" : "follow",
    "data-group": group.fingerprint, onclick: chosen ? null : followRow },
  element("div", { class: "share" },
    element("strong", { class: "number" }, number(group.count)),
    element("span", { class: "track", "aria-hidden": "true" },
      element("span", { class: "fill", style: { width: share } }))),
  element("div", { class: "what" },
    link(to, { class: "reason", "data-focus": "jobs", title: cut(visible(group.reason), 1000),
      "aria-current": chosen ? "true" : null },
    group.reason ? short(firstLine(group.reason), 300) : "(no reason given)"),
    element("div", { class: "muted small facts" }, facts(address, group))),
  element("div", { class: "when small" },
    element("span", {}, element("span", { class: "muted" }, "last "), time(group.lastSeen)),
    element("span", {}, element("span", { class: "muted" }, "first "), time(group.firstSeen))));
}

function facts(address, group) {
  const { min, max } = group.attempts ?? {};
  const attempts = min === max ? `${min}` : `${min} to ${max}`;
  const exampleJob = jobParts({ id: group.exampleId, encodedId: group.exampleEncodedId });
  const example = group.exampleId && jobLink(change(address, exampleJob), {
    title: cut(visible(group.exampleReason ?? ""), 1000) }, "an example");
  return [
    group.frame && element("code", {}, short(group.frame)),
    some("", group.names, ({ name, count }) => [short(name, 60), ` ×\u00a0${number(count)}`]),
    max !== undefined && max !== null
      && element("span", {}, `after ${attempts} ${max === 1 ? "attempt" : "attempts"}`),
    some("source ", group.ingestionSources, ({ id, count }) => [
      textLink(change(address, { text: id, page: 1 }), { "data-focus": "jobs",
        title: "Only the jobs of this source" }, short(id, 60)), ` ×\u00a0${number(count)}`]),
    example && element("span", {}, example),
  ];
}

/** The first few of a list, and how many more there are. */
function some(before, list, show) {
  if (!list?.length) return null;
  const shown = list.slice(0, NAMES_SHOWN).flatMap((item, at) => [at ? ", " : "", show(item)]);
  const more = list.length - NAMES_SHOWN;
  return element("span", {}, before, shown, more > 0 && ` and ${number(more)} more`);
}
