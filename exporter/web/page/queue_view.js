// One queue: its statuses, why its jobs fail, and the jobs of one status.

import { link, queueAddress, STATUSES } from "./address.js";
import { failuresSection } from "./failures_view.js";
import { html } from "./html.js";
import { jobsSection } from "./jobs_view.js";
import { limitNotices } from "./limits.js";
import { count, heading, loading, notice, section, whereabouts } from "./parts.js";
import { schedulersSection } from "./schedulers_view.js";
import { short } from "./text.js";

/** @import { Address, Status } from "./address.js" */
/** @import { Answers } from "./api.js" */
/** @import { Source } from "./loader.js" */
/** @import { Context } from "./parts.js" */

/** @param {Context} context */
export function queueView(context) {
  const { address, sources } = context;
  const { jobs } = sources;
  // By the answer: without a prefix in the address the first one that has the queue is shown.
  const title = heading([short(address.queue), whereabouts(jobs?.answer ?? address)]);
  if (jobs?.problem?.status === 404) return [title, gone(address)];
  return html`
    ${title}
    ${statusTabs(address, jobs)}
    ${jobs?.answer && limitNotices(jobs.answer)}
    ${failuresSection(context)}
    ${jobs?.answer || jobs?.problem ? jobsSection(context, jobs) : jobsAwaited()}
    ${schedulersSection(sources.schedulers)}`;
}

function jobsAwaited() {
  const title = html`<h2 id="jobs-heading" tabindex="-1">Jobs</h2>`;
  return section(null, { id: "jobs-section" }, [title, loading("the jobs")]);
}

/** @param {Address} address */
function gone({ prefix, target }) {
  const where = `${prefix ? " under this prefix" : ""}${target ? " in this target" : ""}`;
  return notice(
    "warn",
    html`<strong>There is no such queue. </strong>
      It was removed, or its name is not written right${where}. ${link({}, {}, "Show all queues")}`,
  );
}

/**
 * @param {Address} address
 * @param {Source<Answers["QueueJobs"]> | undefined} jobs
 */
function statusTabs(address, jobs) {
  const counts = jobs?.answer?.counts;
  const tab = (/** @type {Status} */ status) => {
    const attributes = {
      id: `status-${status}`,
      key: status,
      "data-focus": "jobs",
      class: status === "failed" && counts?.failed ? "bad" : undefined,
      "aria-current": status === address.status ? "page" : undefined,
    };
    const number = counts && html`<span class="number">${" "}${count(counts[status])}</span>`;
    return link(queueAddress(address, status), attributes, [status, number]);
  };
  return html`<nav id="statuses" class=${jobs?.problem ? "tabs stale" : "tabs"}
    aria-label="Statuses">${STATUSES.map(tab)}</nav>`;
}
