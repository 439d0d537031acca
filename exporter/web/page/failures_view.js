// The failed jobs of a queue in groups of the same failure: what to look at first.

import { change, jobLink, jobParts, link, textLink, WINDOWS } from "./address.js";
import { evidenceList, failedWithin, histogram, keptAndSeen } from "./evidence_view.js";
import { html } from "./html.js";
import { badge, followRow, loading, notice, section } from "./parts.js";
import { counted, cut, firstLine, number, short, visible } from "./text.js";
import { time } from "./times.js";

/** @import { Address } from "./address.js" */
/** @import { Answers } from "./api.js" */
/** @import { Content } from "./html.js" */
/** @import { Source } from "./loader.js" */
/** @import { Context } from "./parts.js" */
/** @typedef {Answers["FailureGroup"]} Group */

const GROUPS_SHOWN_AT_FIRST = 6;
const DAY_MS = 86_400_000;
const NAMES_SHOWN = 3;
const WINDOW_NAMES = new Map([
  ["1h", "1 h"],
  ["24h", "24 h"],
  ["7d", "7 d"],
  ["", "all"],
]);

/**
 * Returns null if no groups are requested.
 *
 * @param {Context} context
 */
export function failuresSection(context) {
  const { groups: source } = context.sources;
  if (!source) return null;
  return section(
    source,
    { id: "groups-section", "aria-labelledby": "groups-heading" },
    html`
      <div class="title">
        <h2 id="groups-heading">Failures by reason</h2>
        ${windowChoice(context.address)}
      </div>
      ${content(context, source)}`,
  );
}

/** @param {string} window */
function windowName(window) {
  return WINDOW_NAMES.get(window) ?? window;
}

/** @param {Address} address */
function windowChoice(address) {
  const windows = WINDOWS.includes(address.window) ? WINDOWS : [address.window, ...WINDOWS];
  const choice = (/** @type {string} */ window) => {
    const attributes = {
      key: window,
      id: `window-${window || "all"}`,
      "data-focus": "keep",
      "aria-current": window === address.window ? "true" : undefined,
    };
    return link(change(address, { window, group: "", page: 1 }), attributes, windowName(window));
  };
  return html`<nav id="windows" class="choice" aria-label="Failed in the last">
    <span class="muted" aria-hidden="true">failed in the last</span>
    ${windows.map(choice)}
  </nav>`;
}

/**
 * @param {Context} context
 * @param {Source<Answers["Failures"]>} source
 */
function content(context, { answer, problem }) {
  const { address } = context;
  if (!answer) {
    return problem ? notice("quiet", "The groups could not be read.") : loading("the groups");
  }
  const all = withLinked(context, answer.groups);
  if (!all.length) {
    const when = address.window ? ` in the last ${windowName(address.window)}` : "";
    return html`<p class="quiet">No failed jobs${when}.</p>`;
  }
  const chosen = all.filter(({ fingerprint }) => fingerprint === address.group);
  const most = context.opened.has("groups") ? undefined : GROUPS_SHOWN_AT_FIRST;
  const groups = chosen.length ? chosen : answer.groups.slice(0, most);
  const largest = Math.max(...all.map((group) => failedWithin(group, address.window)));
  const isFiltered = address.name || address.text;
  return html`
    <p class="muted small">
      ${summary(answer)}${seenSince(answer)}${isFiltered && " The filter below changes nothing here."}
    </p>
    <ol id="groups" class="groups">
      ${groups.map((group) => groupItem(context, group, largest))}
    </ol>
    ${chosen.length ? allGroups(address, answer) : moreGroups(context, answer, groups)}`;
}

/**
 * The groups, and the group of the address, which is requested separately.
 *
 * @param {Context} context
 * @param {Group[]} groups
 */
function withLinked({ address, sources }, groups) {
  const added = sources.group?.answer?.groups ?? [];
  const isAbsent = groups.every(({ fingerprint }) => fingerprint !== address.group);
  return isAbsent ? [...groups, ...added] : groups;
}

/** @param {Answers["Failures"]} answer */
export function summary({ failed, willBeRetried, groupsTotal, groups, seen, complete }) {
  const which = groupsTotal > groups.length ? `, the ${number(groups.length)} largest listed` : "";
  const partly = complete ? "" : `; saw only the newest ${number(seen)}, not the older ones`;
  const jobs = counted(failed, "failed job");
  const all = willBeRetried ? `${jobs} and ${number(willBeRetried)} that will be retried` : jobs;
  return `${all} in ${counted(groupsTotal, "group")}${which}${partly}.`;
}

/**
 * Since when failures have been seen, if that is less than the 24 hours that are shown.
 *
 * @param {Answers["Failures"]} answer
 */
function seenSince({ seenSince: since }) {
  if (since === null || Date.now() - since > DAY_MS) return null;
  return html` Seen since ${time(since)}.`;
}

/**
 * @param {Address} address
 * @param {Answers["Failures"]} answer
 */
function allGroups(address, { groups }) {
  if (!groups.length || groups.every((group) => group.fingerprint === address.group)) return null;
  const all = change(address, { group: "", page: 1 });
  const text = `Show all ${counted(groups.length, "group")}`;
  return html`<p class="more">${link(all, { "data-focus": "jobs" }, text)}</p>`;
}

/**
 * @param {Context} context
 * @param {Answers["Failures"]} answer
 * @param {Group[]} shown
 */
function moreGroups(context, { groups }, shown) {
  const more = groups.length - shown.length;
  if (!more) return null;
  const show = () => context.open("groups");
  return html`<p class="more">
    <button type="button" id="more-groups" onclick=${show}>
      Show ${counted(more, "more group", "more groups")}
    </button>
  </p>`;
}

/**
 * @param {Context} context
 * @param {Group} group
 * @param {number} largest number of jobs of a group
 */
function groupItem(context, group, largest) {
  const { address } = context;
  const size = failedWithin(group, address.window);
  const isChosen = group.fingerprint === address.group;
  const to = change(address, { group: isChosen ? "" : group.fingerprint, page: 1 });
  const width = `${size ? Math.max(1, Math.round((size / largest) * 100)) : 0}%`;
  const attributes = {
    class: "reason",
    "data-focus": "jobs",
    title: cut(visible(group.reason), 1000),
    "aria-current": isChosen ? "true" : undefined,
  };
  const reason = group.reason ? short(firstLine(group.reason), 300) : "(no reason given)";
  return html`<li key=${group.fingerprint} class=${isChosen ? "chosen" : "follow"}
    data-group=${group.fingerprint} onclick=${isChosen ? undefined : followRow}>
    <div class="share">
      <strong class="number">${number(size)}</strong>
      <span class="track" aria-hidden="true"><span class="fill" style=${{ width }}></span></span>
      ${histogram(group)}
    </div>
    <div class="what">
      ${link(to, attributes, reason)}
      <div class="muted small facts">${facts(address, group)}</div>
    </div>
    <div class="when small">
      <span><span class="muted">last </span>${time(group.lastSeen)}</span>
      <span><span class="muted">first </span>${time(group.firstSeen)}</span>
    </div>
    ${isChosen && evidenceList(context, group)}
  </li>`;
}

/**
 * @param {Address} address
 * @param {Group} group
 */
function facts(address, group) {
  const { min, max } = group.attempts;
  const attempts = min === max ? `${min}` : `${min} to ${max}`;
  const keptOrSeen = keptAndSeen(group);
  return html`
    ${group.willBeRetried > 0 && badge(`${number(group.willBeRetried)} will be retried`, "warn")}
    ${keptOrSeen && html`<span>${keptOrSeen}</span>`}
    ${group.frame && html`<code>${short(group.frame)}</code>`}
    ${some("", group.names, ({ name }) => short(name, 60))}
    ${max !== null && html`<span>after ${attempts} ${max === 1 ? "attempt" : "attempts"}</span>`}
    ${some("source ", group.ingestionSources, ({ id }) => sourceLink(address, id))}
    ${hasExample(group) && html`<span>${example(address, group)}</span>`}`;
}

/**
 * Whether the example can be opened: not if only jobs that are gone were seen.
 *
 * @param {Group} group
 */
function hasExample({ exampleId, count, willBeRetried, evidence }) {
  return exampleId && (count > 0 || willBeRetried > 0 || evidence[0]?.removed === false);
}

/**
 * @param {Address} address
 * @param {string} id
 */
function sourceLink(address, id) {
  const attributes = { "data-focus": "jobs", title: "Only the jobs of this source" };
  return textLink(change(address, { text: id, page: 1 }), attributes, short(id, 60));
}

/**
 * @param {Address} address
 * @param {Group} group
 */
function example(address, { exampleId, exampleEncodedId, exampleReason }) {
  const job = jobParts({ id: exampleId, encodedId: exampleEncodedId });
  const title = cut(visible(exampleReason ?? ""), 1000);
  return jobLink(change(address, job), { title }, "an example");
}

/**
 * The first few of a list, each with how often it occurs, and how many more there are.
 *
 * @template {{count: number}} Item
 * @param {string} before
 * @param {Item[]} list
 * @param {(item: Item) => Content} show
 */
function some(before, list, show) {
  if (!list.length) return null;
  const shown = list
    .slice(0, NAMES_SHOWN)
    .map((item, at) => [at > 0 && ", ", show(item), ` ×\u00a0${number(item.count)}`]);
  const more = list.length - NAMES_SHOWN;
  return html`<span>${before}${shown}${more > 0 && ` and ${number(more)} more`}</span>`;
}
