// Tables that are updated in place: a row keeps its element while its key exists, and a cell is changed only when its
// text changes. So nothing flickers, and the focus stays.

import { NONE } from "./format.js";

/**
 * A column: `{ name, title, width, number, value(row), text(row), cell(row), className(row), open(row), fixed }`.
 * `value` is what rows are sorted by; `text` is what stands in the cell; `open` makes of it a button; `node` updates an
 * element of the page's own in the cell.
 */
export class Table {
  constructor(element, columns, { key, words, over, empty, sort }) {
    this.element = element;
    this.columns = columns;
    this.key = key;
    this.words = words;
    this.over = over ?? (() => false);
    this.empty = empty ?? "none";
    this.sort = sort ?? null;
    this.rows = [];
    this.filter = "";
    this.elements = new Map();
    this.build();
  }

  build() {
    const group = document.createElement("colgroup");
    const head = document.createElement("thead");
    const line = head.insertRow();
    for (const column of this.columns) {
      const width = document.createElement("col");
      if (column.width) width.style.width = column.width;
      group.append(width);
      const th = document.createElement("th");
      th.scope = "col";
      if (column.number) th.className = "number";
      if (column.value) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = column.name;
        button.title = column.title ?? `Sort by ${column.name}`;
        button.addEventListener("click", () => this.sortBy(column));
        th.append(button);
      } else {
        th.textContent = column.name;
        if (column.title) th.title = column.title;
      }
      column.head = th;
      line.append(th);
    }
    this.body = document.createElement("tbody");
    // Narrow windows scroll a table instead of squeezing it.
    const fixed = this.columns.reduce((sum, column) => sum + (parseFloat(column.width) || column.least || 140), 0);
    this.element.style.minWidth = `${fixed}px`;
    this.element.replaceChildren(group, head, this.body);
    this.markSort();
  }

  sortBy(column) {
    const descends = this.sort?.name === column.name ? !this.sort.descends : Boolean(column.number);
    this.sort = { name: column.name, descends };
    this.markSort();
    this.show(this.rows);
  }

  markSort() {
    for (const column of this.columns) {
      if (!column.value) continue;
      const is = this.sort?.name === column.name;
      column.head.ariaSort = is ? (this.sort.descends ? "descending" : "ascending") : "none";
    }
  }

  /** Shows these rows, as far as the filter leaves them. Returns how many that are. */
  show(rows, filter = this.filter) {
    this.rows = rows;
    this.filter = filter;
    const wanted = filter.toLowerCase().split(/\s+/).filter(Boolean);
    const has = (row) => {
      const text = this.words(row).toLowerCase();
      return wanted.every((word) => text.includes(word));
    };
    const shown = wanted.length === 0 ? [...rows] : rows.filter(has);
    const column = this.columns.find((column) => column.name === this.sort?.name);
    if (column) shown.sort((one, other) => compare(column.value(one), column.value(other), this.sort.descends));
    this.draw(shown);
    return shown.length;
  }

  draw(rows) {
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    const elements = new Map();
    let next = this.body.firstElementChild;
    for (const row of rows) {
      const key = String(this.key(row));
      if (elements.has(key)) continue;
      const element = this.elements.get(key) ?? this.make();
      elements.set(key, element);
      this.update(element, row);
      if (element === next) next = next.nextElementSibling;
      else this.body.insertBefore(element, next);
    }
    for (const [key, element] of this.elements) if (elements.get(key) !== element) element.remove();
    this.elements = elements;
    this.showEmpty(rows.length === 0);
    if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
  }

  showEmpty(isEmpty) {
    if (!isEmpty) {
      this.emptyRow?.remove();
      this.emptyRow = null;
      return;
    }
    if (!this.emptyRow) {
      this.emptyRow = this.body.insertRow();
      const cell = this.emptyRow.insertCell();
      cell.colSpan = this.columns.length;
      cell.className = "empty";
    }
    const text = this.rows.length > 0 ? "no row has the text of the filter" : this.empty;
    if (this.emptyRow.cells[0].textContent !== text) this.emptyRow.cells[0].textContent = text;
  }

  make() {
    const element = document.createElement("tr");
    for (const column of this.columns) {
      const cell = element.insertCell();
      if (column.open) {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "open";
        button.hidden = true;
        button.addEventListener("click", () => column.open(element.row));
        cell.append(button);
      }
    }
    return element;
  }

  update(element, row) {
    element.row = row;
    const className = this.over(row) ? "over" : "";
    if (element.className !== className) element.className = className;
    this.columns.forEach((column, at) => {
      const cell = element.cells[at];
      if (column.node) {
        column.node(cell, row);
        return;
      }
      const text = column.text(row) ?? NONE;
      const place = column.open ? cell.firstElementChild : cell;
      if (column.open) place.hidden = text === "" || text === NONE;
      if (place.textContent !== text) {
        place.textContent = text;
        const hint = column.hint?.(row) ?? (text.length > 14 ? text : "");
        if (cell.title !== hint) cell.title = hint;
      }
      const classes = [column.number ? "number" : "", column.id ? "id" : "", column.className?.(row) ?? ""];
      const name = [...classes, text === NONE || text === "" ? "none" : ""].filter(Boolean).join(" ");
      if (cell.className !== name) cell.className = name;
    });
  }
}

/** What is not known comes last, however rows are sorted. */
function compare(one, other, descends) {
  const missing = (value) => value === null || value === undefined || value === "";
  if (missing(one) || missing(other)) return missing(one) - missing(other);
  const byText = () => String(one).localeCompare(String(other), "en", { numeric: true });
  const order = typeof one === "number" ? one - other : byText();
  return descends ? -order : order;
}

/** A part of a whole as a bar in a cell. */
export function meter(cell, part, text) {
  if (!cell.firstElementChild) {
    const bar = document.createElement("span");
    bar.className = "meter";
    bar.setAttribute("role", "img");
    bar.append(document.createElement("i"));
    cell.append(bar);
  }
  const bar = cell.firstElementChild;
  const width = `${Math.round(Math.min(1, Math.max(0, part)) * 1000) / 10}%`;
  if (bar.firstElementChild.style.width !== width) bar.firstElementChild.style.width = width;
  if (bar.ariaLabel !== text) bar.ariaLabel = text;
}
