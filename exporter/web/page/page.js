// Starts the page, and brings address, loader and views together.

import { jobAddress, link, misread, queueAddress, readAddress, writeAddress } from "./address.js";
import { credential, dropCredential, failuresRequest, jobRequest, jobsRequest, keepCredential,
  keyRequest, queuesRequest, schedulersRequest } from "./api.js";
import { banner, countdown } from "./banner.js";
import { element, fill } from "./dom.js";
import { jobView, keyView } from "./job_view.js";
import { forgetTyping } from "./jobs_view.js";
import { Loader } from "./loader.js";
import { followLinks, History } from "./history.js";
import { queueView } from "./queue_view.js";
import { queuesView } from "./queues_view.js";
import { heading, notice } from "./parts.js";
import { forget, recall, remember } from "./session.js";
import { signInView } from "./sign_in_view.js";
import { cut, short, visible } from "./text.js";
import { absoluteTimes, relative, tickTimes, toggleTimes } from "./times.js";

const part = (id) => document.getElementById(id);
const loader = new Loader(answered);
const places = new History();

let address = readAddress(location.search);
let leftOut = misread(location.search);
let refused = null;
// What the reader has unfolded in this view, and the job names seen in this queue.
let opened = new Set();
let names = new Set();

function signedIn() {
  return Boolean(credential()) && !refused;
}

// --- Views -------------------------------------------------------------------------------------

function requestsOf(view) {
  if (view.job_key) return { key: keyRequest(view) };
  if (!view.queue) return { queues: queuesRequest() };
  if (view.job) return { job: jobRequest(view) };
  const sources = { jobs: jobsRequest(view), schedulers: schedulersRequest(view) };
  return view.status === "failed" ? { ...sources, groups: failuresRequest(view) } : sources;
}

function contentOf(view) {
  const context = { address: view, sources: loader.sources, opened, names, go,
    open: (key) => { opened.add(key); draw(); } };
  if (!signedIn()) return signInView({ refused, signIn, again: () => signIn(credential(), true) });
  if (view.job_key) return keyView(context);
  if (!view.queue) return queuesView(context);
  return view.job ? jobView(context) : queueView(context);
}

/** A fault of the page is said: otherwise what was there before would stay for ever. */
function contentOrFault(view) {
  try {
    return contentOf(view);
  } catch (error) {
    reportError(error);
    return [heading("This cannot be shown"), notice("bad", "The page has a fault: ",
      short(String(error)), ". The API has what it would show.")];
  }
}

function titleOf({ queue, job, status, page, group }) {
  if (!signedIn()) return "Sign in";
  if (!queue) return "All queues";
  if (job) return `Job ${job} in ${queue}`;
  const which = `${group ? " of one group" : ""}${page > 1 ? `, page ${page}` : ""}`;
  return `${queue}: ${status} jobs${which}`;
}

function draw() {
  const inside = signedIn();
  document.title = `${visible(cut(titleOf(address), 300))} – BullMQ`;
  part("controls").hidden = !inside;
  fill(part("crumbs"), crumbs());
  fill(part("banner"), inside && banner(loader.sources, () => loader.refresh()));
  fill(part("main"), [inside && leftOut.length > 0 && notice("warn",
    "Ignored invalid URL parameter: ", short(leftOut.join(", "), 200)),
  contentOrFault(address)].flat());
  drawControls();
}

function crumbs() {
  const { queue, job } = address;
  const here = (last) => (last ? "page" : null);
  if (!signedIn() || !queue) return [element("strong", { class: "brand" }, "BullMQ queues")];
  return [
    link({}, { id: "crumb-all", class: "brand" }, "BullMQ queues"),
    element("span", { "aria-hidden": "true" }, " / "),
    link(queueAddress(address), { id: "crumb-queue", "aria-current": here(!job) },
      short(queue, 60)),
    job && [element("span", { "aria-hidden": "true" }, " / "),
      element("span", { "aria-current": "page" }, short(job, 40))],
  ];
}

// --- Going somewhere ---------------------------------------------------------------------------

/** @param focus "heading", "jobs" (the heading of the list) or "keep" */
function go(to, { focus = "heading", replace = false } = {}) {
  leftOut = [];
  places.go(writeAddress(to), replace);
  show(to, focus);
}

function show(to, focus) {
  forgetTyping();
  if (to.queue !== address.queue || to.prefix !== address.prefix
    || to.target !== address.target) names = new Set();
  if (to.queue !== address.queue || to.job !== address.job
    || to.job_encoded !== address.job_encoded) opened = new Set();
  address = to;
  if (!signedIn()) return draw();
  loader.open(requestsOf(address));
  collectNames();
  draw();
  moveFocus(focus);
}

function moveFocus(focus) {
  if (focus === "keep") return;
  const jobs = focus === "jobs" && part("jobs-heading");
  const target = jobs || part("view-heading");
  target?.focus({ preventScroll: true });
  if (jobs) jobs.scrollIntoView({ block: "nearest" });
  else window.scrollTo(0, 0);
}

window.addEventListener("popstate", () => {
  places.arrive();
  leftOut = misread(location.search);
  const to = readAddress(location.search);
  // A field with the focus keeps what was typed into it; here it has to follow the address.
  const field = document.activeElement;
  if (field?.matches("#filters input")) field.value = to[field.name] ?? "";
  show(to, "keep");
  part("view-heading")?.focus({ preventScroll: true });
  putBack();
});

/** Scroll to, and focus, what was left by going on, as soon as all of it is there again. */
function putBack() {
  const whole = Object.values(loader.sources).every((source) => source.answer && !source.outdated);
  if (whole || !signedIn()) places.putBack();
}

followLinks((clicked) => {
  const to = readAddress(new URL(clicked.href).search);
  if ("back" in clicked.dataset && places.cameFrom(writeAddress(to))) history.back();
  else go(to, { focus: clicked.dataset.focus });
});

// --- Answers -----------------------------------------------------------------------------------

/** @param news whether anything is different from what is on the screen */
function answered(source, news) {
  const { problem } = source;
  const found = loader.sources.key?.answer;
  if (found) return go(jobAddress({ ...found, queue: found.name }, found), { replace: true });
  if (problem?.status === 401 || problem?.status === 403) return refuse(problem);
  // A queue that stands still gives the same answer again and again, yet is judged by the clock.
  if (news || !address.queue) {
    collectNames();
    draw();
    putBack();
  }
  tick();
}

function collectNames() {
  const { jobs, groups } = loader.sources;
  for (const { name } of jobs?.answer?.jobs ?? []) names.add(name);
  for (const group of groups?.answer?.groups ?? []) {
    for (const { name } of group.names ?? []) names.add(name);
  }
}

// --- Signing in and out ------------------------------------------------------------------------

function refuse(refusal) {
  refused = refusal;
  if (refusal.status === 401) dropCredential();
  loader.clear();
  draw();
  part("credential").focus();
}

function signIn(text, possible) {
  if (!possible) {
    refused = { status: "impossible", message: "A key or token has no spaces, accents or other "
      + "special characters. Was it copied whole?" };
    draw();
    part("credential").focus();
    return;
  }
  refused = null;
  keepCredential(text);
  show(address, "heading");
}

function signOut() {
  refused = null;
  dropCredential();
  loader.clear();
  opened = new Set();
  names = new Set();
  draw();
  part("credential").focus();
}

// --- The bar and the clock ---------------------------------------------------------------------

function drawControls() {
  setText(part("pause"), loader.paused ? "Resume" : "Pause");
  part("pause").title = loader.paused ? "Refresh every 10 seconds again" : "Stop refreshing";
  setText(part("times"), absoluteTimes() ? "Relative times" : "Absolute times");
  setText(part("updated"), updatedText());
}

function updatedText() {
  const read = Object.values(loader.sources).map(({ readAt }) => readAt).filter(Boolean);
  const state = loader.paused ? "paused, " : "";
  return read.length ? `${state}updated ${relative(Math.max(...read))}` : loader.paused
    ? "paused" : "";
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function tick() {
  setText(part("updated"), updatedText());
  tickTimes(part("main"));
  const waits = part("countdown");
  if (waits) setText(waits, countdown(Number(waits.dataset.until)));
}

function pause() {
  loader.paused = !loader.paused;
  if (loader.paused) remember("paused", "yes");
  else forget("paused");
  drawControls();
  if (!loader.paused) loader.refresh();
}

function start() {
  loader.paused = recall("paused") === "yes";
  // As a link to a fragment it would become a step of the history.
  part("skip").onclick = (event) => { event.preventDefault(); part("main").focus(); };
  part("pause").onclick = pause;
  part("sign-out").onclick = signOut;
  part("times").onclick = () => { toggleTimes(); draw(); };
  setInterval(() => { loader.tick(); tick(); }, 1000);
  document.addEventListener("visibilitychange", () => loader.tick());
  if (signedIn()) loader.open(requestsOf(address));
  draw();
  if (!signedIn()) part("credential").focus();
}

start();
