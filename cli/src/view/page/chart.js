// Charts of the last minutes: lines over time. The right end is now.

const SVG = "http://www.w3.org/2000/svg";
/** The height of a chart in its own units; its width is in seconds. */
const HEIGHT = 56;
/** The times that a chart can show, in seconds: the first into which all points fit. */
const SPANS = [60, 120, 300];
/** How often the text of a chart changes that is read aloud. */
const SPOKEN_MS = 10000;

export class Chart {
  /**
   * `lines`: `{ of(point), className, name }`, the first with an area. `show(value)` writes a value. `limit(points)` is
   * a value that the lines cannot pass, if there is one.
   */
  constructor(svg, { lines, show, limit, tip }) {
    this.svg = svg;
    this.lines = lines;
    this.write = show;
    this.seconds = SPANS[0];
    this.limit = limit;
    this.tip = tip;
    this.points = [];
    this.spoken = 0;
    this.paths = lines.map((line, at) => {
      const area = at === 0 ? this.add("path", "area") : null;
      return { area, path: this.add("path", `line ${line.className ?? ""}`) };
    });
    this.limitLine = this.add("line", "limit");
    this.cursor = this.add("line", "cursor");
    svg.addEventListener("pointermove", (event) => this.point(event));
    svg.addEventListener("pointerleave", () => this.leave());
  }

  add(name, className) {
    const element = document.createElementNS(SVG, name);
    element.setAttribute("class", className);
    this.svg.append(element);
    return element;
  }

  show(points) {
    const end = points.at(-1)?.at ?? 0;
    this.seconds = SPANS.find((span) => end - (points[0]?.at ?? 0) <= span) ?? SPANS.at(-1);
    this.svg.setAttribute("viewBox", `0 0 ${this.seconds} ${HEIGHT}`);
    this.points = points.filter((point) => point.at >= end - this.seconds);
    const values = this.points.flatMap((point) => this.lines.map((line) => line.of(point) ?? 0));
    const limit = this.limit?.(points) ?? 0;
    // The scale has room above, and changes in steps, so that the line does not jump at each look.
    const top = Math.max(round(Math.max(...values, 1e-9) * 1.1), limit * 1.1);
    const x = (point) => (point.at - end + this.seconds).toFixed(1);
    const y = (value) => (HEIGHT - 1 - (value / top) * (HEIGHT - 6)).toFixed(1);
    this.lines.forEach((line, at) => {
      const { area, path } = this.paths[at];
      const parts = pieces(this.points, line.of);
      const trace = parts.map((part) => `M${part.map((point) => `${x(point)} ${y(line.of(point))}`).join("L")}`);
      path.setAttribute("d", trace.join(""));
      area?.setAttribute(
        "d",
        parts.map((part, at) => `${trace[at]}V${HEIGHT}H${x(part[0])}Z`).join(""),
      );
    });
    const at = limit > 0 ? y(limit) : -9;
    for (const [name, value] of Object.entries({ x1: 0, x2: this.seconds, y1: at, y2: at })) {
      this.limitLine.setAttribute(name, value);
    }
    this.speak(values);
  }

  /** The chart in words, for those who hear the page. */
  speak(values) {
    const now = performance.now();
    if (values.length === 0 || (this.spoken && now - this.spoken < SPOKEN_MS)) return;
    this.spoken = now;
    const last = this.points.at(-1);
    const words = this.lines.map((line) => {
      const all = this.points.map(line.of).filter((value) => value !== null && value !== undefined);
      if (all.length === 0) return `${line.name}: not known`;
      const range = `${this.write(Math.min(...all))} to ${this.write(Math.max(...all))}`;
      return `${line.name}: ${this.write(line.of(last))} now, ${range}`;
    });
    this.svg.setAttribute("aria-label", `The last ${this.seconds} seconds. ${words.join("; ")}`);
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const end = this.points.at(-1)?.at;
    if (end === undefined) return;
    const at = end - this.seconds + ((event.clientX - box.left) / box.width) * this.seconds;
    const distance = (point) => Math.abs(point.at - at);
    const nearest = this.points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
    const x = nearest.at - end + this.seconds;
    const ends = { x1: x, x2: x, y1: 0, y2: HEIGHT };
    for (const [name, value] of Object.entries(ends)) this.cursor.setAttribute(name, value);
    this.cursor.style.visibility = "visible";
    const lines = this.lines.map((line) => `${line.name}: ${this.write(line.of(nearest))}`);
    this.tip.show(event, [`${Math.round(end - nearest.at)} s ago`, ...lines].join("\n"));
  }

  leave() {
    this.cursor.style.visibility = "hidden";
    this.tip.hide();
  }
}

/** The parts of a line between its gaps. */
function pieces(points, of) {
  const parts = [];
  let part = [];
  for (const point of points) {
    if (of(point) === null || of(point) === undefined) {
      if (part.length > 0) parts.push(part);
      part = [];
    } else {
      part.push(point);
    }
  }
  if (part.length > 0) parts.push(part);
  return parts;
}

/** The next of 1, 2, 5, 10, 20, … */
function round(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * unit >= value) * unit;
}

/** The box of text beside the pointer. */
export class Tip {
  constructor(element) {
    this.element = element;
  }

  show(event, text) {
    if (this.element.textContent !== text) this.element.textContent = text;
    this.element.hidden = false;
    const box = this.element.getBoundingClientRect();
    const x = Math.min(event.clientX + 12, window.innerWidth - box.width - 8);
    const under = event.clientY + 16;
    const y = under + box.height > window.innerHeight - 8 ? event.clientY - box.height - 10 : under;
    this.element.style.left = `${Math.max(8, x)}px`;
    this.element.style.top = `${Math.max(8, y)}px`;
  }

  hide() {
    this.element.hidden = true;
  }
}
