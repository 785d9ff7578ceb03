// The timeline: a track for each process, with its calls and, below, the waits of its threads.

import { colour, short, time } from "./format.js";

const LABEL = 132;
const TRACK = 26;
const RUN = 15;
const AXIS = 22;
const TRACKS_MAX = 60;
const FONT = '11px system-ui, "Liberation Sans", "DejaVu Sans", sans-serif';

export class Timeline {
  /** `open(call)` shows a call; `tip` is the box beside the pointer. */
  constructor(canvas, { open, tip }) {
    this.canvas = canvas;
    this.open = open;
    this.tip = tip;
    this.data = null;
    this.boxes = [];
    this.withArrows = false;
    this.chosen = -1;
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerleave", () => this.tip.hide());
    canvas.addEventListener("click", (event) => this.click(event));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.choose(-1));
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(data, words) {
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    const has = (span) => {
      const text = `${span[2]} ${span[0]} ${span[5] ?? ""} ${span[6] ?? ""}`.toLowerCase();
      return wanted.every((word) => text.includes(word));
    };
    this.data = { ...data, spans: wanted.length > 0 ? data.spans.filter(has) : data.spans };
    this.draw();
  }

  draw() {
    if (!this.data) return;
    const { tracks, spans, arrows, seconds } = this.data;
    const used = new Set(spans.map((span) => span[0]));
    // Living processes, and those that were there in this time.
    const isShown = (track) => used.has(track.pid) || !track.label.includes("(ended)");
    const shown = tracks.filter(isShown).slice(0, TRACKS_MAX);
    const rows = new Map(shown.map((track, at) => [track.pid, at]));
    const width = this.canvas.parentElement.clientWidth;
    const height = Math.max(1, shown.length) * TRACK + AXIS;
    const context = this.prepare(width, height);
    const style = getComputedStyle(this.canvas);
    const css = (name) => style.getPropertyValue(name);
    const scale = (width - LABEL) / seconds;
    const x = (ago) => LABEL + (ago + seconds) * scale;
    this.axis(context, css, { width, height, seconds, x });
    shown.forEach((track, at) => this.label(context, css, track, at, width));
    context.save();
    context.beginPath();
    context.rect(LABEL, 0, width - LABEL, height - AXIS);
    context.clip();
    this.boxes = [];
    for (const span of spans) {
      const row = rows.get(span[0]);
      if (row !== undefined) this.span(context, css, span, row * TRACK, x, scale);
    }
    if (this.withArrows) this.arrows(context, css, arrows, rows, x);
    this.outline(context, css);
    context.restore();
  }

  prepare(width, height) {
    const dots = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(width * dots), Math.round(height * dots)];
    if (this.canvas.width !== w || this.canvas.height !== h) {
      this.canvas.width = w;
      this.canvas.height = h;
      this.canvas.style.height = `${height}px`;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(dots, 0, 0, dots, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = FONT;
    context.textBaseline = "middle";
    return context;
  }

  axis(context, css, { width, height, seconds, x }) {
    const bottom = height - AXIS;
    context.strokeStyle = css("--line");
    context.fillStyle = css("--quiet");
    context.lineWidth = 1;
    const steps = Math.max(2, Math.min(6, Math.floor((width - LABEL) / 110)));
    for (let step = 0; step <= steps; step += 1) {
      const ago = -seconds + (step * seconds) / steps;
      const at = Math.round(x(ago)) - 0.5;
      context.beginPath();
      context.moveTo(at, 0);
      context.lineTo(at, bottom);
      context.stroke();
      context.textAlign = step === 0 ? "left" : step === steps ? "right" : "center";
      context.fillText(step === steps ? "now" : `−${time(-ago)}`, at, bottom + AXIS / 2 + 1);
    }
  }

  label(context, css, track, at, width) {
    const top = at * TRACK;
    context.strokeStyle = css("--line");
    context.beginPath();
    context.moveTo(0, top + TRACK - 0.5);
    context.lineTo(width, top + TRACK - 0.5);
    context.stroke();
    context.textAlign = "left";
    context.fillStyle = track.label.includes("(ended)") ? css("--quiet") : css("--text");
    context.fillText(fit(context, track.label, LABEL - 12), 0, top + TRACK / 2);
  }

  span(context, css, span, top, x, scale) {
    const [, kind, name, ago, length, , state] = span;
    const left = x(ago);
    if (length === null) {
      context.fillStyle = css("--mark");
      context.fillRect(left - 0.5, top + 2, 1.5, TRACK - 5);
      this.boxes.push({ left: left - 3, top, width: 6, height: TRACK, span });
      return;
    }
    const isRun = kind === "task";
    const width = Math.max(length * scale, 1);
    const box = { left, top: top + (isRun ? 3 : 3 + RUN), width, height: isRun ? RUN : 4, span };
    context.fillStyle = isRun ? css(`--f${colour(name)}`) : kind === "wait" ? css("--wait") : css("--mark");
    context.fillRect(left, box.top, width, box.height);
    if (state === "failed") {
      context.fillStyle = css("--bad");
      context.fillRect(left, box.top, width, 3);
    }
    if (isRun && width > 34) {
      context.fillStyle = css("--on-span");
      context.textAlign = "left";
      const from = Math.max(left, LABEL);
      context.fillText(fit(context, short(name), left + width - from - 8), from + 4, box.top + RUN / 2 + 0.5);
    }
    this.boxes.push(box);
  }

  arrows(context, css, arrows, rows, x) {
    context.strokeStyle = css("--quiet");
    context.globalAlpha = 0.55;
    for (const [from, made, to, begun] of arrows) {
      if (!rows.has(from) || !rows.has(to)) continue;
      const [x1, y1] = [x(made), rows.get(from) * TRACK + 3 + RUN / 2];
      const [x2, y2] = [x(begun), rows.get(to) * TRACK + 3 + RUN / 2];
      const bend = Math.max(12, (x2 - x1) / 2);
      context.beginPath();
      context.moveTo(x1, y1);
      context.bezierCurveTo(x1 + bend, y1, x2 - bend, y2, x2, y2);
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  outline(context, css) {
    const box = this.boxes[this.chosen];
    if (!box) return;
    context.strokeStyle = css("--text");
    context.lineWidth = 2;
    context.strokeRect(box.left, box.top, Math.max(box.width, 3), box.height);
    context.lineWidth = 1;
  }

  at(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - left, event.clientY - top];
    const is = (box) => x >= box.left - 1 && x <= box.left + box.width + 1 && y >= box.top && y <= box.top + box.height;
    return this.boxes.findLast(is);
  }

  point(event) {
    const box = this.at(event);
    this.canvas.style.cursor = box?.span[5] ? "pointer" : "default";
    if (box) this.tip.show(event, words(box.span));
    else this.tip.hide();
  }

  click(event) {
    const call = this.at(event)?.span[5];
    if (call) this.open(call);
  }

  /** The arrows go from part to part, Enter opens a call. */
  key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) {
      event.preventDefault();
      const count = this.boxes.length;
      if (count > 0) this.choose(this.chosen < 0 ? count - 1 : (this.chosen + step + count) % count);
    } else if (event.key === "Enter" && this.boxes[this.chosen]?.span[5]) {
      this.open(this.boxes[this.chosen].span[5]);
    }
  }

  choose(at) {
    if (this.chosen === at) return;
    this.chosen = at;
    this.draw();
    const box = this.boxes[at];
    if (!box) {
      this.tip.hide();
      return;
    }
    const { left, top } = this.canvas.getBoundingClientRect();
    this.tip.show({ clientX: left + Math.max(box.left, LABEL), clientY: top + box.top + box.height }, words(box.span));
    this.canvas.setAttribute("aria-label", words(box.span).replaceAll("\n", ", "));
  }
}

function words([pid, kind, name, ago, length, call, state]) {
  const took = length === null ? "" : `${time(length)}, `;
  const lines = [name, `${took}began ${time(-ago)} ago`, `process ${pid}${call ? `, call ${call}` : ""}`];
  if (state && state !== "finished") lines.push(state);
  if (kind !== "task" && kind !== "wait") lines.push(kind);
  return lines.join("\n");
}

/** As much of a text as fits. */
function fit(context, text, width) {
  if (width <= 0) return "";
  if (context.measureText(text).width <= width) return text;
  let [least, most] = [0, text.length];
  while (least < most) {
    const middle = Math.ceil((least + most) / 2);
    if (context.measureText(`${text.slice(0, middle)}…`).width <= width) least = middle;
    else most = middle - 1;
  }
  return least === 0 ? "" : `${text.slice(0, least)}…`;
}
