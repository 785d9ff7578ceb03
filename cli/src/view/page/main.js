// The page: takes the stream of figures, and brings each part of the page up to date.

import { Chart, Tip } from "./chart.js";
import { amount, bytes, clock, count, percent, rate, short, time } from "./format.js";
import { showGraph } from "./graph.js";
import { Log } from "./log.js";
import { segmentTable, showLegend, showStore } from "./map.js";
import { Table, meter } from "./table.js";
import { Timeline } from "./timeline.js";

/** Points of the charts that are kept: as many as the program keeps. */
const POINTS_MAX = 900;

const find = (id) => document.getElementById(id);
const tip = new Tip(find("tip"));
let points = [];
let sample = null;
let isPaused = false;
let stream = null;
let session = { state: "connecting" };

// ---- the parts of the page ----

const number = true;
const busy = (row) => row.state !== "dead";
const first = (row) => row.waits[0];

const workers = new Table(
  find("workers-table"),
  [
    { name: "Pid", width: "76px", number, value: (row) => row.pid, text: (row) => String(row.pid) },
    { name: "Kind", width: "64px", value: (row) => row.kind, text: (row) => row.kind },
    {
      name: "State", width: "76px", title: "What the head of the session has it do", value: (row) => row.state,
      text: (row) => row.state, className: (row) => (row.state === "blocked" ? "warn" : ""),
    },
    {
      name: "Runs", least: 140, value: (row) => row.function,
      text: (row) => (row.function ? short(row.function) : row.recorded ? "" : null),
      hint: (row) => row.function ?? (row.recorded ? "" : "not recorded"),
    },
    {
      name: "For", width: "76px", number, title: "How long the call has run", value: (row) => row.running_s,
      text: (row) => (row.running_s === null ? "" : time(row.running_s)),
    },
    {
      name: "Call", width: "92px", value: (row) => row.task, text: (row) => row.task ?? "",
      open: (row) => row.task && openCall(row.task),
    },
    {
      name: "Waits for", least: 140, value: (row) => first(row)?.for_s,
      text: (row) => row.waits.map((wait) => `${wait.what} (${time(wait.for_s)})`).join(", "),
    },
    {
      name: "Holds", width: "84px", title: "Resources of the session", value: (row) => row.holds,
      text: (row) => (row.holds === "nothing" ? "" : row.holds),
    },
    {
      name: "Calls/s", width: "80px", number, value: (row) => row.calls_per_s,
      text: (row) => (row.calls_per_s === null ? null : rate(row.calls_per_s)),
    },
    {
      name: "CPU", width: "60px", number, title: "100 % is one processor", value: (row) => row.cpu_percent,
      text: (row) => percent(row.cpu_percent),
    },
    {
      name: "Memory", width: "84px", number, title: "Resident memory without the store's",
      value: (row) => row.memory_bytes, text: (row) => bytes(row.memory_bytes),
    },
    {
      name: "Leased", width: "84px", number, title: "Memory of the store that it has leased",
      value: (row) => row.leased_bytes, text: (row) => bytes(row.leased_bytes),
    },
    {
      name: "Objects", width: "72px", number, title: "Objects that it has made and that are there",
      value: (row) => row.objects, text: (row) => count(row.objects),
    },
  ],
  {
    key: (row) => `${row.pid}.${row.kind}`,
    words: (row) => {
      const waits = row.waits.map((wait) => wait.what);
      return [row.pid, row.kind, row.state, row.function ?? "", row.task ?? "", ...waits].join(" ");
    },
    over: (row) => !busy(row),
    empty: "no process of the session is known",
  },
);

const functions = new Table(
  find("functions-table"),
  [
    { name: "Function", least: 240, value: (row) => row.function, text: (row) => row.function },
    {
      name: "Calls/s", width: "88px", number, title: "Calls that ended", value: (row) => row.calls_per_s,
      text: (row) => rate(row.calls_per_s),
    },
    { name: "Running", width: "76px", number, value: (row) => row.running, text: (row) => count(row.running) },
    {
      name: "Waiting", width: "80px", number, title: "Calls that have not begun", value: (row) => row.pending,
      text: (row) => count(row.pending), className: (row) => (row.pending > 0 && row.running === 0 ? "warn" : ""),
    },
    { name: "Finished", width: "92px", number, value: (row) => row.finished, text: (row) => count(row.finished) },
    {
      name: "Failed", width: "76px", number, value: (row) => row.failed, text: (row) => count(row.failed),
      className: (row) => (row.failed > 0 ? "bad" : ""),
    },
    {
      name: "p50", width: "80px", number, title: "Half of the calls took longer", value: (row) => row.p50_s,
      text: (row) => time(row.p50_s),
    },
    {
      name: "p99", width: "80px", number, title: "One call of a hundred took longer", value: (row) => row.p99_s,
      text: (row) => time(row.p99_s),
    },
    { name: "Longest", width: "80px", number, value: (row) => row.max_s, text: (row) => time(row.max_s) },
    {
      name: "Together", width: "88px", number, title: "The time of all its calls", value: (row) => row.total_s,
      text: (row) => time(row.total_s),
    },
  ],
  {
    key: (row) => row.function,
    words: (row) => row.function,
    empty: "no calls are counted; programs that start with MOBULA_EVENTS=all count them",
    sort: { name: "Together", descends: true },
  },
);

const actors = new Table(
  find("actors-table"),
  [
    { name: "Actor", width: "76px", number, value: (row) => row.actor, text: (row) => String(row.actor) },
    { name: "Class", least: 110, value: (row) => row.class, text: (row) => short(row.class), hint: (row) => row.class },
    { name: "Name", least: 80, value: (row) => row.name, text: (row) => row.name ?? "" },
    {
      name: "State", width: "92px", value: (row) => row.state, text: (row) => row.state, hint: (row) => row.death ?? "",
      className: (row) => ({ dead: "bad", alive: "" })[row.state] ?? "warn",
    },
    {
      name: "Pid", width: "76px", number, value: (row) => row.pid,
      text: (row) => (row.pid === null ? null : String(row.pid)),
    },
    {
      name: "Runs", least: 100, value: (row) => row.function, text: (row) => (row.function ? short(row.function) : ""),
    },
    { name: "Running", width: "76px", number, value: (row) => row.in_flight, text: (row) => count(row.in_flight) },
    {
      name: "Queue", width: "72px", number, title: "Calls that wait for it", value: (row) => row.queue,
      text: (row) => count(row.queue),
    },
    { name: "Restarts", width: "80px", number, value: (row) => row.restarts, text: (row) => count(row.restarts) },
  ],
  {
    key: (row) => row.actor,
    words: (row) => `${row.actor} ${row.class} ${row.name ?? ""} ${row.state} ${row.pid ?? ""} ${row.function ?? ""}`,
    over: (row) => row.state === "dead",
    empty: "there is no actor",
  },
);

const resources = new Table(
  find("resources-table"),
  [
    { name: "Resource", width: "140px", value: (row) => row.name, text: (row) => row.name },
    { name: "Used", width: "90px", number, value: (row) => row.used, text: (row) => amount(row.name, row.used) },
    { name: "Of", width: "90px", number, value: (row) => row.total, text: (row) => amount(row.name, row.total) },
    {
      name: "Share", least: 100,
      node: (cell, row) => {
        const share = row.used / (row.total || 1);
        return meter(cell, row.total > 0 ? share : 0, `${percent(100 * share)} used`);
      },
    },
  ],
  { key: (row) => row.name, words: (row) => row.name, empty: "the head of the session has not said" },
);

const wanted = new Table(
  find("wanted-table"),
  [
    {
      name: "Waits", width: "132px", value: (row) => row.pid,
      text: (row) => (row.pid === null ? "an actor" : `process ${row.pid}`),
    },
    {
      name: "For so many workers", width: "150px", number, value: (row) => row.workers,
      text: (row) => count(row.workers),
    },
    { name: "Each with", least: 110, value: (row) => row.demand, text: (row) => row.demand },
    {
      name: "Since", width: "90px", number, value: (row) => row.waited_s, text: (row) => time(row.waited_s),
      className: (row) => (row.waited_s > 5 ? "warn" : ""),
    },
  ],
  {
    key: (row) => `${row.pid} ${row.demand}`, words: (row) => `${row.pid} ${row.demand}`,
    empty: "no call waits for a worker",
  },
);

const phases = { pending_arguments: "waits for argument" };
const calls = new Table(
  find("calls-table"),
  [
    { name: "Call", width: "120px", text: (row) => row.task, open: (row) => openCall(row.task) },
    { name: "Function", least: 200, text: (row) => row.function },
    {
      name: "State", width: "170px",
      text: (row) => (phases[row.state] ?? row.state) + (row.cause ? ` (${row.cause.replaceAll("_", " ")})` : ""),
      className: (row) => ({ failed: "bad", pending_arguments: "warn" })[row.state] ?? "",
    },
    { name: "Made", width: "112px", number, text: (row) => clock(row.created) },
    {
      name: "Waited", width: "88px", number, title: "From when it was made to when it began",
      text: (row) => (row.created && row.started ? time(Math.max(0, row.started - row.created)) : null),
    },
    { name: "Ran", width: "88px", number, text: (row) => time(row.ran_s) },
    { name: "Caller", width: "84px", number, text: (row) => String(row.caller_pid) },
    { name: "Worker", width: "84px", number, text: (row) => (row.worker_pid === null ? null : String(row.worker_pid)) },
    { name: "Waits for", least: 110, text: (row) => row.waits_for ?? "" },
  ],
  {
    key: (row) => row.task, words: () => "",
    empty: "no call is recorded; programs that start with MOBULA_EVENTS=all record them",
  },
);

const segments = segmentTable(find("map-table"));
const log = new Log(find("log"));
const timeline = new Timeline(find("timeline-canvas"), { open: openCall, tip });

const charts = [
  chart("calls", {
    show: rate,
    lines: [
      { name: "calls", of: (point) => point.calls_per_s },
      { name: "failures", className: "bad", of: (point) => point.failures_per_s },
    ],
  }),
  chart("queue", {
    show: count,
    lines: [
      { name: "running", of: (point) => point.running },
      { name: "waiting", className: "second", of: (point) => point.pending },
    ],
  }),
  chart("cpu", { show: percent, lines: [{ name: "processors", of: (point) => point.cpu_percent }] }),
  chart("memory", { show: bytes, lines: [{ name: "memory", of: (point) => point.memory_bytes }] }),
  chart("store", {
    show: bytes,
    limit: () => sample?.store.capacity_bytes ?? 0,
    lines: [
      { name: "used", of: (point) => point.store_used_bytes },
      { name: "on disk", className: "second", of: (point) => point.store_spilled_bytes },
    ],
  }),
];

function chart(name, options) {
  return new Chart(find(`figure-${name}`).querySelector("svg"), { ...options, tip });
}

// ---- the stream ----

function connect() {
  stream?.close();
  stream = new EventSource("events");
  stream.addEventListener("history", (event) => {
    points = JSON.parse(event.data).points;
    if (!isPaused) drawCharts();
  });
  stream.addEventListener("look", (event) => take(JSON.parse(event.data)));
  stream.addEventListener("error", () => {
    if (session.state !== "ended") showSession({ state: "lost", reason: "no answer from mobula view; trying again" });
  });
}

function take(update) {
  showSession(update.session);
  document.body.dataset.number = update.number;
  if (!update.sample) return;
  const isNew = update.sample.number !== sample?.number;
  const isFirst = !sample;
  sample = update.sample;
  if (isFirst) for (const again of asking) again();
  if (isNew && points.at(-1)?.at !== sample.at) {
    points.push(pointOf(sample));
    if (points.length > POINTS_MAX) points.shift();
  }
  if (!isPaused) show(update.left_out);
}

/** The same as the program's history has. */
function pointOf({ at, figures, store }) {
  return {
    at,
    ...figures,
    store_used_bytes: store.used_bytes,
    store_object_bytes: store.object_bytes,
    store_spilled_bytes: store.spilled_bytes,
    waiting: store.waiting,
  };
}

function showSession(now) {
  const texts = {
    running: () => (isPaused ? "running; this page is paused" : "running"),
    silent: () => "the session does not answer",
    lost: () => now.reason,
    ended: () => `${now.reason}: this is its last state`,
  };
  session = now;
  document.body.dataset.session = now.state;
  const text = texts[now.state]?.() ?? now.state;
  // Read aloud, so it changes only when it says something else.
  if (find("session-text").textContent !== text) find("session-text").textContent = text;
  const title = now.state === "running" ? "Mobula" : `Mobula: ${now.state}`;
  if (document.title !== title) document.title = title;
}

// ---- what is shown of a look ----

let leftOut = {};

function show(more = leftOut) {
  leftOut = more;
  if (!sample) return;
  const filter = find("filter").value;
  showUnknown(sample.unknown);
  showFigures(sample);
  drawCharts();
  counted("workers", workers.show(sample.workers, filter), sample.workers.length, more.workers);
  counted("functions", functions.show(sample.functions, filter), sample.functions.length, more.functions);
  counted("actors", actors.show(sample.actors, filter), sample.actors.length, more.actors);
  find("graph").closest("figure").hidden = showGraph(find("graph"), sample.actors, sample.workers) === 0;
  resources.show(sample.resources, "");
  wanted.show(sample.wanted, "");
  showStore(find("store-bar"), find("store-legend"), sample.store);
}

function drawCharts() {
  if (points.length > 0) for (const chart of charts) chart.show(points);
}

/** How many rows there are, beside the title of a table. */
function counted(name, shown, all, more = 0) {
  const rest = more > 0 ? `; ${count(more)} more are left out` : "";
  const text = (shown === all ? count(all) : `${count(shown)} of ${count(all)}`) + rest;
  const place = document.querySelector(`#${name} .count`);
  if (place.textContent !== text) place.textContent = text;
}

function showUnknown(unknown) {
  const place = find("unknown");
  const lines = unknown.map(({ what, why, remedy }) => [`Not shown: ${what}, because ${why}.`, `${remedy}.`]);
  const text = JSON.stringify(lines);
  if (place.dataset.text === text) return;
  place.dataset.text = text;
  place.hidden = lines.length === 0;
  place.replaceChildren(
    ...lines.map(([what, remedy]) => {
      const line = document.createElement("p");
      const quiet = document.createElement("span");
      quiet.className = "remedy";
      quiet.textContent = ` ${remedy}`;
      line.append(what, quiet);
      return line;
    }),
  );
}

function showFigures({ figures, store, workers }) {
  const alive = workers.filter(busy);
  const running = alive.filter((row) => row.function).length;
  figure("calls", rate(figures.calls_per_s), `${rate(figures.failures_per_s)} fail`);
  figure("queue", count(figures.running), `${count(figures.pending)} waiting`);
  figure("cpu", percent(figures.cpu_percent), `${count(running)} of ${count(figures.processes)} processes run a call`);
  figure("memory", bytes(figures.memory_bytes), `without the store's`);
  figure("store", bytes(store.used_bytes), `of ${bytes(store.capacity_bytes)}, ${bytes(store.spilled_bytes)} on disk`);
}

function figure(name, value, detail) {
  const [, valuePlace, detailPlace] = find(`figure-${name}`).children;
  if (valuePlace.dataset.text !== value) {
    valuePlace.dataset.text = value;
    const [amount, ...unit] = value.split(" ");
    const small = document.createElement("small");
    small.textContent = unit.length > 0 ? ` ${unit.join(" ")}` : "";
    valuePlace.replaceChildren(amount, small);
  }
  if (detailPlace.textContent !== detail) detailPlace.textContent = detail;
}

// ---- what is asked for while it is on the screen ----

/** The pollers. Each starts after the first sample, because before it there are no answers. */
const asking = [];

/** Asks at most once a second, one question at a time, while an element is on the screen. */
function ask(id, path, take) {
  let isSeen = false;
  let isAsking = false;
  let asked = "";
  new IntersectionObserver(([entry]) => {
    isSeen = entry.isIntersecting;
    if (isSeen) again();
  }, { rootMargin: "200px" }).observe(find(id));
  async function again(isForced = false) {
    const isOver = session.state === "ended" && asked === path();
    if (!sample || isAsking || !isSeen || document.hidden || ((isPaused || isOver) && !isForced)) return;
    isAsking = true;
    const now = path();
    try {
      const answer = await fetch(now);
      if (answer.ok) {
        take(await answer.json());
        asked = now;
      }
    } catch {
      // The stream says that the connection is lost.
    } finally {
      isAsking = false;
    }
    if (path() !== now) again(true);
  }
  setInterval(again, 1000);
  asking.push(again);
  return () => again(true);
}

const query = (fields) => new URLSearchParams(Object.entries(fields).filter(([, value]) => value !== "")).toString();

const askCalls = ask(
  "calls",
  () => {
    const [state, sort] = [find("calls-state").value, find("calls-sort").value];
    return `tasks?${query({ state, sort, text: find("filter").value.trim(), limit: 200 })}`;
  },
  ({ tasks, total }) => {
    counted("calls", calls.show(tasks, ""), total);
  },
);

let lastTimeline = null;
const askTimeline = ask("timeline", () => `timeline?seconds=${find("timeline-seconds").value}`, (data) => {
  lastTimeline = data;
  showTimeline();
});

function showTimeline() {
  if (!lastTimeline) return;
  timeline.withArrows = find("timeline-arrows").checked;
  const actorAt = new Map((sample?.actors ?? []).map((actor) => [actor.pid, actor.name ?? short(actor.class)]));
  const named = ({ pid, label }) => ({ pid, label: actorAt.has(pid) ? `${actorAt.get(pid)} ${pid}` : label });
  timeline.show({ ...lastTimeline, tracks: lastTimeline.tracks.map(named) }, find("filter").value);
  const shown = count(lastTimeline.spans.length);
  const note = lastTimeline.left_out > 0 ? `the last ${shown} parts; a shorter time shows all` : "";
  const place = document.querySelector("#timeline .count");
  if (place.textContent !== note) place.textContent = note;
  showLegend(find("timeline-legend"), [
    { name: "colours: functions" },
    { name: "waiting", colour: "--wait" },
    { name: "marks, spans and memory", colour: "--mark" },
    { name: "failed", colour: "--bad" },
  ]);
}

ask("store", () => "map", (map) => {
  segments.show(map.segments, find("filter").value);
  const more = map.segments_left_out > 0 ? `, ${count(map.segments_left_out)} more are left out` : "";
  const text = `${count(map.segments.length)} segments${more}`;
  const place = document.querySelector("#store .count");
  if (place.textContent !== text) place.textContent = text;
});

ask("logs", () => `logs?after=${log.next}`, (answer) => {
  const text = log.take(answer);
  const place = document.querySelector("#logs .count");
  if (place.textContent !== text) place.textContent = text;
});

// ---- one call ----

async function openCall(id) {
  const [dialog, body] = [find("call"), find("call-body")];
  find("call-title").textContent = `Call ${id}`;
  body.textContent = "…";
  if (!dialog.open) dialog.showModal();
  try {
    const answer = await fetch(`task?${query({ id })}`);
    if (answer.ok) showCall(body, await answer.json());
    else body.textContent = await answer.text();
  } catch {
    body.textContent = "no answer from mobula view";
  }
}

function showCall(body, { task, why, made }) {
  const list = document.createElement("dl");
  const add = (name, value) => {
    if (value === null || value === undefined || value === "") return;
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    text.append(value);
    list.append(term, text);
  };
  add("Function", task.function);
  add("State", (phases[task.state] ?? task.state) + (task.cause ? ` (${task.cause.replaceAll("_", " ")})` : ""));
  add("Made", `${clock(task.created)} by process ${task.caller_pid}`);
  add("Began", task.started ? `${clock(task.started)} in process ${task.worker_pid}` : "");
  add("Waited", task.created && task.started ? time(Math.max(0, task.started - task.created)) : "");
  add("Ran", task.ran_s === null ? "" : time(task.ran_s));
  add("Ended", task.ended && task.state !== "running" ? clock(task.ended) : "");
  add("Waits for", task.waits_for);
  for (const [name, text] of argumentLines(task)) add(name, text);
  const parts = [list];
  if (why) {
    const chain = document.createElement("ol");
    chain.className = "chain";
    for (const link of why.chain) {
      const line = document.createElement("li");
      const lasted = link.for_s === null ? "" : `, for ${time(link.for_s)}`;
      line.textContent = `${link.kind} ${link.id}: ${link.text}${lasted}`;
      chain.append(line);
    }
    const end = document.createElement("li");
    end.textContent = `${why.end}: ${why.text}`;
    chain.append(end);
    parts.push(title("What it waits for"), chain);
  }
  if (made.length > 0) {
    const table = document.createElement("table");
    parts.push(title(`Calls that it made (${count(made.length)})`), table);
    new Table(
      table,
      [
        { name: "Call", width: "120px", text: (row) => row.task, open: (row) => openCall(row.task) },
        { name: "Function", least: 160, text: (row) => row.function },
        { name: "State", width: "130px", text: (row) => phases[row.state] ?? row.state },
        { name: "Ran", width: "90px", number, text: (row) => time(row.ran_s) },
      ],
      { key: (row) => row.task, words: () => "" },
    ).show(made);
  }
  body.replaceChildren(...parts);
}

/** What is known of the arguments of a call. */
function argumentLines(task) {
  if (!task.arguments) return [["Arguments", "their sizes are not recorded"]];
  const { inline_bytes: inline, objects, results } = task.arguments;
  const parts = [`${bytes(inline)} in the call itself`];
  if (objects > 0) parts.push(`${count(objects)} objects of the store`);
  if (results > 0) parts.push(`${count(results)} results of other calls`);
  return [["Arguments", parts.join(", ")]];
}

function title(text) {
  const element = document.createElement("h3");
  element.textContent = text;
  return element;
}

// ---- controls ----

find("filter").addEventListener("input", () => {
  show();
  showTimeline();
  askCalls();
  log.show(find("filter").value);
});
for (const id of ["calls-state", "calls-sort"]) find(id).addEventListener("change", askCalls);
find("timeline-seconds").addEventListener("change", askTimeline);
find("timeline-arrows").addEventListener("change", showTimeline);
find("call-close").addEventListener("click", () => find("call").close());
find("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  find("pause").setAttribute("aria-pressed", String(isPaused));
  showSession(session);
  if (!isPaused) show();
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input[type=search], select") || find("call").open;
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    find("filter").focus();
  } else if (event.key === "Escape" && event.target === find("filter")) {
    find("filter").value = "";
    find("filter").dispatchEvent(new Event("input"));
  }
});

// A page that nobody sees asks for nothing. The samples that it missed come as history.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stream?.close();
  else connect();
});

connect();
