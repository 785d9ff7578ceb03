// The store's memory: a bar for the whole store, and a row with a map for each segment.

import { bytes, count } from "./format.js";
import { Table } from "./table.js";

const SVG = "http://www.w3.org/2000/svg";

/** The parts of the capacity: what they are, the field of the store's figures, their colour. */
const PARTS = [
  ["objects", "object_bytes", "--f0", "payloads of objects in memory"],
  [
    "room and gaps", "fragment_bytes", "--accent-soft",
    "leased memory without objects: room for the next ones, and gaps",
  ],
  ["given back, still mapped", "retired_bytes", "--quiet", "no object lies there, and a process still has it mapped"],
];

/** The bar of the store, and its legend. */
export function showStore(bar, legend, store) {
  if (bar.children.length === 0) {
    for (const [, , colour] of PARTS) {
      const part = document.createElement("i");
      part.style.background = `var(${colour})`;
      bar.append(part);
    }
  }
  const all = Math.max(1, store.capacity_bytes);
  PARTS.forEach(([, field], at) => {
    const width = `${((store[field] / all) * 100).toFixed(2)}%`;
    if (bar.children[at].style.width !== width) bar.children[at].style.width = width;
  });
  bar.ariaLabel = `${bytes(store.used_bytes)} of ${bytes(store.capacity_bytes)} are used`;
  const items = PARTS.map(([name, field, colour, title]) => ({ name, value: bytes(store[field]), colour, title }));
  items.push({ name: "free", value: bytes(store.free_bytes), colour: "--line", title: "memory that can be leased" });
  items.push({
    name: "on disk", value: `${bytes(store.spilled_bytes)} in ${count(store.spilled_objects)} objects`,
    title: "spilled objects",
  });
  if (store.orphaned_bytes > 0) {
    const title = "segments whose owner has died, with objects that others use";
    items.push({ name: "of dead processes", value: bytes(store.orphaned_bytes), title });
  }
  items.push({
    name: "threads that wait for memory", value: store.waiting === null ? "not known" : count(store.waiting),
  });
  showLegend(legend, items);
}

/** A legend: names, values, and squares in colours. */
export function showLegend(legend, items) {
  while (legend.children.length > items.length) legend.lastElementChild.remove();
  items.forEach((item, at) => {
    let place = legend.children[at];
    if (!place) {
      place = document.createElement("span");
      place.append(document.createElement("span"), document.createElement("span"), document.createElement("b"));
      legend.append(place);
    }
    const [key, name, value] = place.children;
    key.className = item.colour ? "key" : "";
    key.style.background = item.colour ? `var(${item.colour})` : "";
    if (place.title !== (item.title ?? "")) place.title = item.title ?? "";
    const text = item.value === undefined ? item.name : `${item.name} `;
    if (name.textContent !== text) name.textContent = text;
    if (value.textContent !== (item.value ?? "")) value.textContent = item.value ?? "";
  });
}

/** The table of segments. */
export function segmentTable(element) {
  const number = true;
  const used = (row) => row.object_bytes / Math.max(1, row.bytes);
  return new Table(
    element,
    [
      {
        name: "Process", width: "150px", value: (row) => row.label || row.pid,
        text: (row) => row.label || "a dead process",
      },
      { name: "Segment", width: "80px", number, value: (row) => row.number, text: (row) => String(row.number) },
      {
        name: "Phase", width: "90px", value: (row) => row.phase, text: (row) => row.phase,
        className: (row) => (row.phase === "leased" ? "" : "warn"),
      },
      { name: "Size", width: "90px", number, value: (row) => row.bytes, text: (row) => bytes(row.bytes) },
      {
        name: "Pages", width: "90px", number,
        title: "Memory that it takes: less than its size once pages were given back", value: (row) => row.page_bytes,
        text: (row) => bytes(row.page_bytes),
      },
      { name: "Objects", width: "90px", number, value: (row) => row.objects, text: (row) => count(row.objects) },
      { name: "In objects", width: "90px", number, value: used, text: (row) => `${(used(row) * 100).toFixed(0)} %` },
      {
        name: "Gaps", width: "70px", number, title: "Free places between objects and behind them",
        value: (row) => row.gaps, text: (row) => count(row.gaps),
      },
      {
        name: "Largest gap", width: "100px", number, value: (row) => row.gap_bytes_max,
        text: (row) => bytes(row.gap_bytes_max),
      },
      {
        name: "Readers", width: "80px", number, title: "Other processes that have it mapped",
        value: (row) => row.readers, text: (row) => count(row.readers),
      },
      { name: "Where objects lie", least: 240, node: drawMap },
    ],
    {
      key: (row) => `${row.label}.${row.pid}.${row.number}`, words: (row) => `${row.label} ${row.pid} ${row.phase}`,
      empty: "no memory is leased",
    },
  );
}

function drawMap(cell, row) {
  let svg = cell.firstElementChild;
  if (!svg) {
    svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("viewBox", "0 0 1000 10");
    svg.setAttribute("role", "img");
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", "objects");
    svg.append(path);
    cell.append(svg);
  }
  svg.setAttribute("class", `map ${row.phase}`);
  const scale = 1000 / Math.max(1, row.bytes);
  const box = ([offset, length]) => {
    const width = Math.max(length * scale, 0.6).toFixed(2);
    return `M${(offset * scale).toFixed(2)} 0h${width}v10h-${width}z`;
  };
  const trace = row.parts.map(box).join("");
  const path = svg.firstElementChild;
  if (path.getAttribute("d") !== trace) path.setAttribute("d", trace);
  const words = `${count(row.objects)} objects in ${row.parts.length} parts, ${row.gaps} gaps`;
  if (svg.ariaLabel !== words) svg.ariaLabel = words;
}
