// Starts the page, and brings address, loader and views together.

import { jobAddress, link, misread, queueAddress, readAddress, writeAddress } from "./address.js";
import {
  credential,
  dropCredential,
  failuresRequest,
  groupRequest,
  jobRequest,
  jobsRequest,
  keepCredential,
  keyRequest,
  queuesRequest,
  schedulersRequest,
} from "./api.js";
import { banner } from "./banner.js";
import { followLinks, History } from "./history.js";
import { html, separate } from "./html.js";
import { jobView, keyView } from "./job_view.js";
import { forgetTyping } from "./jobs_view.js";
import { Loader } from "./loader.js";
import { heading, notice } from "./parts.js";
import { queueView } from "./queue_view.js";
import { queuesView } from "./queues_view.js";
import { drawInto, part } from "./screen.js";
import { forget, recall, remember } from "./session.js";
import { signInView } from "./sign_in_view.js";
import { cut, short, visible } from "./text.js";
import { absoluteTimes, relative, tickTimes, toggleTimes } from "./times.js";

/** @import { Address } from "./address.js" */
/** @import { Problem, Source } from "./loader.js" */
/** @import { Going } from "./parts.js" */
/** @import { Refused } from "./sign_in_view.js" */

const loader = new Loader(answered);
const places = new History();

let address = readAddress(location.search);
let ignored = misread(location.search);
/** Whether the page was opened with a link to a group that is not shown yet. */
let isLinked = Boolean(address.group);
/** @type {Refused | null} */
let refused = null;
/** @type {Set<string>} keys of what the reader has unfolded in this view */
let opened = new Set();
/** @type {Set<string>} job names seen in this queue */
let names = new Set();

function isSignedIn() {
  return Boolean(credential()) && !refused;
}

// --- Views -------------------------------------------------------------------------------------

/**
 * @param {Address} view
 * @returns {Record<string, import("./api.js").Request<any>>}
 */
function requestsOf(view) {
  if (view.job_key) return { key: keyRequest(view) };
  if (!view.queue) return { queues: queuesRequest() };
  if (view.job) return { job: jobRequest(view) };
  const sources = { jobs: jobsRequest(view), schedulers: schedulersRequest(view) };
  return view.status === "failed" ? { ...sources, groups: failuresRequest(view) } : sources;
}

/** @param {Address} view */
function contentOf(view) {
  const open = (/** @type {string} */ key) => {
    opened.add(key);
    draw();
  };
  const context = { address: view, sources: loader.sources, opened, names, go, open };
  if (!isSignedIn()) {
    return signInView({ refused, signIn, again: () => signIn(credential() ?? "", true) });
  }
  if (view.job_key) return keyView(context);
  if (!view.queue) return queuesView(context);
  return view.job ? jobView(context) : queueView(context);
}

/**
 * Show an error of the page itself: otherwise the previous view would stay forever.
 *
 * @param {Address} view
 */
function contentOrFault(view) {
  try {
    return contentOf(view);
  } catch (error) {
    reportError(error);
    const text = [
      "The page has a fault: ",
      short(String(error)),
      ". The API has what it would show.",
    ];
    return [heading("This cannot be shown"), notice("bad", text)];
  }
}

/**
 * The state of the screen for a queue or a job is not carried over to another one.
 *
 * @param {Address} view
 */
function keyOf({ job_key, target, prefix, queue, job, job_encoded }) {
  if (!isSignedIn()) return "sign in";
  return JSON.stringify([job_key, target, prefix, queue, job, job_encoded]);
}

/** @param {Address} view */
function titleOf({ queue, job, status, page, group }) {
  if (!isSignedIn()) return "Sign in";
  if (!queue) return "All queues";
  if (job) return `Job ${job} in ${queue}`;
  const which = `${group ? " of one group" : ""}${page > 1 ? `, page ${page}` : ""}`;
  return `${queue}: ${status} jobs${which}`;
}

function draw() {
  document.title = `${visible(cut(titleOf(address), 300))} – BullMQ`;
  part("controls").hidden = !isSignedIn();
  drawInto(part("crumbs"), crumbs());
  drawBanner();
  drawInto(
    part("main"),
    separate(keyOf(address), html`${ignoredNotice()}${contentOrFault(address)}`),
  );
  drawControls();
}

function drawBanner() {
  const askAgain = () => loader.refresh();
  drawInto(part("banner"), isSignedIn() && banner(loader.all, askAgain));
}

function ignoredNotice() {
  if (!isSignedIn() || !ignored.length) return null;
  return notice("warn", ["Ignored invalid URL parameter: ", short(ignored.join(", "), 200)]);
}

function crumbs() {
  const { queue, job } = address;
  if (!isSignedIn() || !queue) return html`<strong class="brand">BullMQ queues</strong>`;
  const attributes = { id: "crumb-queue", "aria-current": job ? undefined : "page" };
  const slash = html`<span aria-hidden="true"> / </span>`;
  return html`
    ${link({}, { id: "crumb-all", class: "brand" }, "BullMQ queues")}
    ${slash}
    ${link(queueAddress(address), attributes, short(queue, 60))}
    ${job && [slash, html`<span aria-current="page">${short(job, 40)}</span>`]}`;
}

// --- Going somewhere ---------------------------------------------------------------------------

/**
 * @param {Address} to
 * @param {Going} how
 */
function go(to, { focus = "heading", replace = false } = {}) {
  ignored = [];
  places.go(writeAddress(to), replace);
  show(to, focus);
}

/**
 * @param {Address} to
 * @param {string} focus
 */
function show(to, focus) {
  forgetTyping();
  if (to !== address) isLinked = false;
  const changed = (/** @type {(keyof Address)[]} */ ...parts) =>
    parts.some((name) => to[name] !== address[name]);
  if (changed("queue", "prefix", "target")) names = new Set();
  if (changed("queue", "job", "job_encoded")) opened = new Set();
  address = to;
  if (!isSignedIn()) return draw();
  loader.open(requestsOf(address));
  addGroup();
  collectNames();
  draw();
  moveFocus(focus);
}

/** @param {string} focus */
function moveFocus(focus) {
  if (focus === "keep") return;
  const jobs = focus === "jobs" ? document.getElementById("jobs-heading") : null;
  const target = jobs ?? document.getElementById("view-heading");
  target?.focus({ preventScroll: true });
  if (jobs) jobs.scrollIntoView({ block: "nearest" });
  else window.scrollTo(0, 0);
}

window.addEventListener("popstate", () => {
  places.arrive();
  ignored = misread(location.search);
  const to = readAddress(location.search);
  // A field with the focus keeps what was typed into it; here it has to follow the address.
  const field = document.activeElement;
  if (field instanceof HTMLInputElement && field.matches("#filters input")) {
    field.value = field.name === "name" ? to.name : to.text;
  }
  show(to, "keep");
  document.getElementById("view-heading")?.focus({ preventScroll: true });
  putBack();
});

/** Scroll to, and focus, what was left by going on, as soon as all of it is there again. */
function putBack() {
  const isWhole = loader.all.every((source) => source.answer && !source.outdated);
  if (isWhole || !isSignedIn()) places.putBack();
}

followLinks((clicked) => {
  const to = readAddress(new URL(clicked.href).search);
  if ("back" in clicked.dataset && places.cameFrom(writeAddress(to))) history.back();
  else go(to, { focus: clicked.dataset.focus });
});

// --- Answers -----------------------------------------------------------------------------------

/**
 * @param {Source<any>} source
 * @param {boolean} news whether anything is different from what is on the screen
 */
function answered({ problem }, news) {
  const found = loader.sources.key?.answer;
  if (found) return go(jobAddress({ ...found, queue: found.name }, found), { replace: true });
  if (problem?.status === 401 || problem?.status === 403) return refuse(problem);
  // A stuck queue gives the same answer again and again, but its verdict depends on the time.
  if (news || !address.queue) {
    addGroup();
    collectNames();
    draw();
    putBack();
    showLinkedGroup();
  }
  tick();
}

/** Ask for the group of the address if it is not among the largest, or failed before the window. */
function addGroup() {
  const groups = loader.sources.groups;
  if (!address.group || !groups?.answer || groups.outdated) return;
  const isThere = groups.answer.groups.some(({ fingerprint }) => fingerprint === address.group);
  if (!isThere) loader.add("group", groupRequest(address));
}

/** Who followed a link to a group sees it first, once. */
function showLinkedGroup() {
  const chosen = isLinked && document.querySelector("#groups .chosen");
  if (!chosen) return;
  isLinked = false;
  chosen.scrollIntoView({ block: "nearest" });
}

function collectNames() {
  const { jobs, groups } = loader.sources;
  for (const { name } of jobs?.answer?.jobs ?? []) names.add(name);
  for (const group of groups?.answer?.groups ?? []) {
    for (const { name } of group.names) names.add(name);
  }
}

// --- Signing in and out ------------------------------------------------------------------------

/** @param {Problem} problem */
function refuse(problem) {
  if (problem.status === 401) dropCredential();
  loader.clear();
  askForCredential(problem);
}

/** @param {Refused | null} why */
function askForCredential(why) {
  refused = why;
  draw();
  part("credential").focus();
}

/**
 * @param {string} text
 * @param {boolean} possible whether it can be a credential
 */
function signIn(text, possible) {
  if (!possible) {
    const message =
      "A key or token has no spaces, accents or other special characters. Was it copied whole?";
    return askForCredential({ status: "impossible", message });
  }
  refused = null;
  keepCredential(text);
  show(address, "heading");
}

function signOut() {
  dropCredential();
  loader.clear();
  opened = new Set();
  names = new Set();
  askForCredential(null);
}

// --- The bar and the clock ---------------------------------------------------------------------

function drawControls() {
  setText("pause", loader.paused ? "Resume" : "Pause");
  part("pause").title = loader.paused ? "Refresh every 10 seconds again" : "Stop refreshing";
  setText("times", absoluteTimes() ? "Relative times" : "Absolute times");
  setText("updated", updatedText());
}

function updatedText() {
  const read = loader.all.map(({ readAt }) => readAt).filter(Boolean);
  const updated = read.length ? `updated ${relative(Math.max(...read))}` : "";
  return [loader.paused && "paused", updated].filter(Boolean).join(", ");
}

/**
 * @param {string} id
 * @param {string} text
 */
function setText(id, text) {
  const node = part(id);
  if (node.textContent !== text) node.textContent = text;
}

/** What the clock changes, every second. */
function tick() {
  setText("updated", updatedText());
  tickTimes(part("main"));
  drawBanner();
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
  // Preact keeps what it finds; what index.html has there is for the time until now.
  part("main").replaceChildren();
  part("skip").onclick = (event) => {
    // A link to a fragment would add a history entry.
    event.preventDefault();
    part("main").focus();
  };
  part("pause").onclick = pause;
  part("sign-out").onclick = signOut;
  part("times").onclick = () => {
    toggleTimes();
    draw();
  };
  setInterval(() => {
    loader.tick();
    tick();
  }, 1000);
  document.addEventListener("visibilitychange", () => loader.tick());
  if (!isSignedIn()) return askForCredential(null);
  loader.open(requestsOf(address));
  draw();
}

start();
