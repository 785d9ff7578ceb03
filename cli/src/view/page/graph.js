// The graph of calls: processes at the left, actors in columns after their callers.

import { count, short } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const BOX = { width: 132, height: 34 };
const STEP = { x: 176, y: 42 };
const NODES_MAX = 60;

/** Draws the graph, if anything but its colours has changed. */
export function showGraph(svg, actors, workers) {
  const living = actors.filter((actor) => actor.state !== "dead").slice(0, NODES_MAX);
  const byPid = new Map(living.filter((actor) => actor.pid !== null).map((actor) => [actor.pid, actor]));
  const kinds = new Map(workers.map((worker) => [worker.pid, worker.kind]));
  const callers = new Set(living.flatMap((actor) => actor.callers).filter((pid) => !byPid.has(pid)));
  const nodes = [...callers]
    .sort((one, other) => one - other)
    .map((pid) => ({ id: `p${pid}`, title: `${kinds.get(pid) ?? "process"} ${pid}`, column: 0 }));
  const column = columns(living, byPid);
  for (const actor of living) {
    const title = actor.name ?? short(actor.class);
    nodes.push({ id: `a${actor.actor}`, actor, title, column: column.get(actor.actor) });
  }
  const edges = living.flatMap((actor) => actor.callers.map((pid) => {
    const from = byPid.has(pid) ? `a${byPid.get(pid).actor}` : `p${pid}`;
    return { from, to: `a${actor.actor}`, queue: actor.queue ?? 0 };
  }));
  place(nodes);
  const shape = JSON.stringify([nodes.map((node) => [node.id, node.title]), edges.map((edge) => [edge.from, edge.to])]);
  if (svg.dataset.shape !== shape) {
    svg.dataset.shape = shape;
    build(svg, nodes, edges);
  }
  for (const node of nodes) update(svg, node);
  edges.forEach((edge, at) => {
    const path = svg.querySelector(`[data-edge="${at}"]`);
    path?.setAttribute("class", edge.queue > 0 ? "queue" : "");
    if (path) path.style.strokeWidth = `${1 + Math.min(4, Math.log10(1 + edge.queue))}px`;
  });
  const words = living.map((actor) => `${actor.name ?? actor.class}: called by ${actor.callers.length} processes`);
  svg.ariaLabel = words.length > 0 ? `Who calls which actor. ${words.slice(0, 12).join("; ")}` : "there is no actor";
  return living.length;
}

/** As many calls as it takes to reach each actor from a process that is none; by number of the actor. */
function columns(living, byPid) {
  const found = new Map();
  for (let column = 1; found.size < living.length; column += 1) {
    const isBefore = (pid) => (byPid.has(pid) ? found.get(byPid.get(pid).actor) === column - 1 : column === 1);
    const isNext = (actor) => actor.callers.some(isBefore) || (column === 1 && actor.callers.length === 0);
    const next = living.filter((actor) => !found.has(actor.actor) && isNext(actor));
    // Actors that only call each other.
    const rest = next.length > 0 ? next : living.filter((actor) => !found.has(actor.actor));
    for (const actor of rest) found.set(actor.actor, column);
  }
  return found;
}

function place(nodes) {
  const filled = new Map();
  for (const node of nodes) {
    const row = filled.get(node.column) ?? 0;
    filled.set(node.column, row + 1);
    node.x = node.column * STEP.x + 1;
    node.y = row * STEP.y + 1;
  }
  // Shorter columns stand in the middle.
  const most = Math.max(0, ...filled.values());
  for (const node of nodes) node.y += ((most - filled.get(node.column)) * STEP.y) / 2;
}

function make(parent, name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

function build(svg, nodes, edges) {
  svg.replaceChildren();
  const width = Math.max(1, ...nodes.map((node) => node.x + BOX.width)) + 24;
  const height = Math.max(1, ...nodes.map((node) => node.y + BOX.height)) + 1;
  svg.setAttribute("width", width);
  svg.setAttribute("height", height);
  const where = new Map(nodes.map((node) => [node.id, node]));
  edges.forEach((edge, at) => {
    const [from, to] = [where.get(edge.from), where.get(edge.to)];
    if (!from || !to) return;
    const [x1, y1, x2, y2] = [from.x + BOX.width, from.y + BOX.height / 2, to.x, to.y + BOX.height / 2];
    const isForward = x2 > x1;
    const bend = isForward ? Math.max(20, (x2 - x1) / 2) : 28;
    // Within a column, and back, an edge goes around at the right.
    const end = isForward ? x2 : to.x + BOX.width;
    const control = isForward ? x2 - bend : end + bend;
    make(svg, "path", { d: `M${x1} ${y1}C${x1 + bend} ${y1} ${control} ${y2} ${end} ${y2}`, "data-edge": at });
  });
  for (const node of nodes) {
    const group = make(svg, "g", { "data-node": node.id, transform: `translate(${node.x} ${node.y})` });
    make(group, "rect", { width: BOX.width, height: BOX.height, rx: 5 });
    make(group, "title", {}).textContent = node.actor ? node.actor.class : node.title;
    make(group, "text", { x: 9, y: node.actor ? 14 : 21 }).textContent = cut(node.title);
    if (node.actor) make(group, "text", { x: 9, y: 28, class: "quiet" });
  }
}

function update(svg, node) {
  const group = svg.querySelector(`[data-node="${node.id}"]`);
  if (!group || !node.actor) return;
  const { state, queue, in_flight: running } = node.actor;
  group.setAttribute("class", running > 0 ? "busy" : "");
  const calls = queue === null ? "alive" : `${count(running)} running, ${count(queue)} waiting`;
  const text = state !== "alive" ? state : calls;
  if (group.lastElementChild.textContent !== text) group.lastElementChild.textContent = text;
}

function cut(text) {
  return text.length > 18 ? `${text.slice(0, 17)}…` : text;
}
