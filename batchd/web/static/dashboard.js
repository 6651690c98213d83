// Makes the pages live. Without it every page still works: it is then as it was when it was loaded.
//
// State changes, progress and log lines come over one stream of server-sent events. Progress moves the bars at once and
// a line is put at the end of the log; for anything else the page is fetched again in the background, and the regions
// marked `data-live` whose content has changed are replaced. The browser comes back by itself with Last-Event-ID after a
// lost connection; where it gives up (an answer that was no stream), this does, with the same id in the address.

const live = document.getElementById("live");
const said = document.getElementById("said");
const address = document.body.dataset.events;
const oneRun = document.body.dataset.run;

const REFRESH_AFTER = 250;
const REFRESH_EVERY = 1500;
const LOOK_EVERY = 10000;
const LONGEST_WAIT = 15000;

// The connection ----------------------------------------------------------------------------------------------------

let source = null;
let lastId = "";
let tries = 0;
let wasLost = false;
let isOver = false;

function connect() {
  const from = lastId ? (address.includes("?") ? "&" : "?") + "after=" + encodeURIComponent(lastId) : "";
  source = new EventSource(address + from);
  source.addEventListener("open", () => {
    tries = 0;
    show("on", "Live");
    if (wasLost) refreshSoon();
    wasLost = false;
  });
  source.addEventListener("error", () => {
    if (isOver) return;
    wasLost = true;
    show("lost", "Reconnecting…");
    if (source.readyState !== EventSource.CLOSED) return;
    source.close();
    const wait = Math.min(LONGEST_WAIT, 1000 * 2 ** tries++) * (0.75 + Math.random() / 2);
    setTimeout(connect, wait);
  });
  const on = (name, act) => source.addEventListener(name, (event) => {
    if (event.lastEventId) lastId = event.lastEventId;
    act(event.data ? JSON.parse(event.data) : {});
  });
  on("state", changed);
  on("progress", progressed);
  on("log", logged);
  on("reset", refreshSoon);
  on("download", refreshSoon);
  on("end", ended);
  on("message", () => {});
}

function show(state, text) {
  live.hidden = false;
  if (live.dataset.state === state) return;
  live.dataset.state = state;
  live.textContent = text;
}

// What comes --------------------------------------------------------------------------------------------------------

function changed(event) {
  if (oneRun && String(event.run_id) === oneRun && event.state) said.textContent = `Run ${oneRun}: ${event.state}`;
  refreshSoon();
}

// The last word of a run's stream: there will be no more. A run that is queued again has a new one.
function ended(event) {
  isOver = true;
  source.close();
  show("off", "Ended");
  said.textContent = `Run ${oneRun}: ${event.state}`;
  refreshSoon();
}

function progressed(event) {
  const box = document.querySelector(`[data-progress="${event.run_id}"]`);
  if (!box) return oneRun ? refreshSoon() : undefined;
  const bar = box.querySelector("progress");
  if (event.total) {
    bar.max = event.total;
    bar.value = Math.min(event.done, event.total);
  }
  box.querySelector("[data-part=done]").textContent = doneText(event);
  if (event.rate_per_second) box.querySelector("[data-part=pace]").textContent = paceText(event);
  const note = document.querySelector("[data-part=note]");
  if (oneRun && note && event.note) note.textContent = oneLine(event.note);
}

function doneText({ done, total, percent, note }) {
  const count = number(done) + (total ? ` of ${number(total)} (${Math.floor(percent)} %)` : "");
  return note ? `${count} ${oneLine(note)}` : count;
}

function paceText({ rate_per_second: rate, eta_seconds: eta }) {
  const left = eta === null || eta === undefined ? "" : `, ${span(eta)} left`;
  return ` · ${number(rate < 10 ? Math.round(rate * 10) / 10 : Math.round(rate))}/s${left}`;
}

// What a job wrote, without the characters that turn text around or hide it: as `batchd.domain.wording.cleaned` has it.
const clean = (text) => text.replace(/[\r\v\f\x85\u2028\u2029]/g, " ").replace(/[\p{Cf}\p{Cs}]|(?![\n\t])\p{Cc}/gu, "");
const oneLine = (text) => clean(text).replace(/[\n\t]/g, " ");

const number = (value) => value.toLocaleString("en-US");

function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${whole % 60}s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}h ${Math.floor((whole % 3600) / 60)}m`;
  return `${Math.floor(whole / 86400)}d ${Math.floor((whole % 86400) / 3600)}h`;
}

// The page, fetched again ---------------------------------------------------------------------------------------------

let timer = null;
let refreshedAt = 0;

function refreshSoon() {
  if (timer !== null) return;
  const wait = Math.max(REFRESH_AFTER, refreshedAt + REFRESH_EVERY - performance.now());
  timer = setTimeout(refresh, wait);
}

async function refresh() {
  refreshedAt = performance.now();
  try {
    const answer = await fetch(location.href, { credentials: "same-origin", redirect: "manual" });
    if (answer.ok) replaceRegions(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    wasLost = true; // the stream notices as well, and a refresh follows when it is back
  } finally {
    timer = null;
  }
}

function replaceRegions(fresh) {
  for (const old of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(old.id);
    if (now && !now.isEqualNode(old)) replace(old, now);
  }
  for (const region of fresh.querySelectorAll("[data-live]")) {
    if (document.getElementById(region.id)) continue;
    const before = fresh.getElementById(region.id).previousElementSibling;
    const place = before && before.id && document.getElementById(before.id);
    if (place) place.after(document.importNode(region, true));
  }
  tellAges();
  offerSelectAll();
}

function replace(old, fresh) {
  const focused = old.contains(document.activeElement) ? markOf(document.activeElement, old) : null;
  const open = new Map([...old.querySelectorAll("details[id]")].map((each) => [each.id, each.open]));
  const checked = new Set([...old.querySelectorAll("input:checked")].map((each) => each.value));
  const next = document.importNode(fresh, true);
  for (const each of next.querySelectorAll("details[id]")) if (open.has(each.id)) each.open = open.get(each.id);
  for (const each of next.querySelectorAll("input[type=checkbox]")) if (checked.has(each.value)) each.checked = true;
  old.replaceWith(next);
  if (focused) next.querySelectorAll(focused.selector)[focused.place]?.focus({ preventScroll: true });
}

function markOf(element, region) {
  const selector = element.id ? `#${CSS.escape(element.id)}` : element.tagName.toLowerCase();
  return { selector, place: [...region.querySelectorAll(selector)].indexOf(element) };
}

// The log --------------------------------------------------------------------------------------------------------------

const log = document.getElementById("log");
const pane = document.getElementById("log-pane");
const search = document.getElementById("log-search");
const count = document.getElementById("log-count");
const MOST_LINES = 5000;

function logged(line) {
  // A run's beginning is told by its log alone.
  if (line.event === "run.started") refreshSoon();
  if (!log || log.querySelector(`[data-line="${line.line}"]`)) return;
  const atEnd = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
  const item = document.createElement("li");
  item.className = `is-${line.level}`;
  item.dataset.line = line.line;
  const time = document.createElement("time");
  time.className = "at";
  time.dateTime = line.at;
  time.textContent = clock(line.at);
  item.append(time, part("level", line.level), part("said", clean(line.message)));
  log.append(item);
  while (log.children.length > MOST_LINES) log.firstElementChild.remove();
  if (search.value) filterLine(item, search.value.toLowerCase());
  tellCount();
  if (atEnd) pane.scrollTop = pane.scrollHeight;
}

function part(css, text) {
  const element = document.createElement("span");
  element.className = css;
  element.textContent = text;
  return element;
}

const clock = (moment) =>
  new Date(moment).toLocaleTimeString("en-GB", { timeZone: log.dataset.zone, hour12: false, fractionalSecondDigits: 3 });

function filterLog() {
  const wanted = search.value.trim().toLowerCase();
  for (const item of log.children) filterLine(item, wanted);
  tellCount();
}

function filterLine(item, wanted) {
  const line = item.querySelector(".said");
  const text = line.textContent;
  const at = wanted ? text.toLowerCase().indexOf(wanted) : 0;
  const level = item.querySelector(".level").textContent;
  item.hidden = Boolean(wanted) && at < 0 && !level.includes(wanted);
  line.textContent = text;
  if (!wanted || at < 0) return;
  const mark = document.createElement("mark");
  mark.textContent = text.slice(at, at + wanted.length);
  line.replaceChildren(text.slice(0, at), mark, text.slice(at + wanted.length));
}

function tellCount() {
  const all = log.children.length;
  const shown = [...log.children].filter((item) => !item.hidden).length;
  count.textContent = shown === all ? `${number(all)} ${all === 1 ? "line" : "lines"}` : `${number(shown)} of ${number(all)} lines`;
}

if (log) {
  pane.scrollTop = pane.scrollHeight;
  search.addEventListener("input", filterLog);
  search.form.addEventListener("submit", (event) => event.preventDefault());
  if (search.value) filterLog();
}

// Ages, and small comforts ----------------------------------------------------------------------------------------------

function tellAges() {
  const now = Date.now();
  for (const each of document.querySelectorAll("time[data-ago]")) {
    const seconds = (now - Date.parse(each.dateTime)) / 1000;
    const text = Math.abs(seconds) < 1 ? "now" : seconds > 0 ? `${rough(seconds)} ago` : `in ${rough(-seconds)}`;
    if (each.textContent !== text) each.textContent = text;
  }
}

function rough(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86400)}d`;
}

function offerSelectAll() {
  for (const id of ["select-all", "select-all-label"]) document.getElementById(id)?.removeAttribute("hidden");
}

document.addEventListener("change", (event) => {
  if (event.target.id !== "select-all") return;
  for (const each of document.querySelectorAll("input[name=run]")) each.checked = event.target.checked;
});

// A form that was sent must not be sent twice by an impatient finger.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (event.target.dataset.sent) return event.preventDefault();
  event.target.dataset.sent = "yes";
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

offerSelectAll();
tellAges();
setInterval(tellAges, 5000);
if (address && live) {
  connect();
  // Some things happen without an event: an incident opens behind its run's end, a queue is paused, a daemon falls silent.
  const look = () => document.hidden || isOver || refreshSoon();
  setInterval(look, LOOK_EVERY);
  document.addEventListener("visibilitychange", look);
}
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (event) => {
  if (event.persisted && address) connect();
});
