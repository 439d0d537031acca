// One queue: its statuses, why its jobs fail, and the jobs of one status.

import { link, queueAddress, STATUSES } from "./address.js";
import { count, heading, loading, notice, section, whereabouts } from "./parts.js";
import { element } from "./dom.js";
import { failuresSection } from "./failures_view.js";
import { jobsSection } from "./jobs_view.js";
import { limitNotices } from "./limits.js";
import { schedulersSection } from "./schedulers_view.js";
import { short } from "./text.js";

export function queueView(context) {
  const { address, sources: { jobs, groups, schedulers } } = context;
  // Told by the answer: without one in the address the first prefix that has the queue is shown.
  const title = heading(short(address.queue), whereabouts(jobs.answer ?? address));
  if (jobs.problem?.status === 404) return [title, gone(address)];
  return [title, statusTabs(context), jobs.answer && limitNotices(jobs.answer),
    groups && failuresSection(context),
    jobs.answer || jobs.problem ? jobsSection(context)
      : section(null, { id: "jobs-section" }, element("h2", { id: "jobs-heading",
        tabindex: "-1" }, "Jobs"), loading("the jobs")),
    schedulersSection(schedulers)];
}

function gone(address) {
  return notice("warn", element("strong", {}, "There is no such queue. "),
    "It was removed, or its name is not written right",
    address.prefix ? " under this prefix" : "", address.target ? " in this target" : "", ". ",
    link({}, {}, "Show all queues"));
}

function statusTabs({ address, sources: { jobs } }) {
  const counts = jobs.answer?.counts;
  const tab = (status) => link(queueAddress(address, status), {
    id: `status-${status}`, key: status, "data-focus": "jobs",
    class: status === "failed" && counts?.failed ? "bad" : null,
    "aria-current": status === address.status ? "page" : null,
  }, status, counts && element("span", { class: "number" }, " ", count(counts[status])));
  return element("nav", { id: "statuses", class: jobs.problem ? "tabs stale" : "tabs",
    "aria-label": "Statuses" }, STATUSES.map(tab));
}
