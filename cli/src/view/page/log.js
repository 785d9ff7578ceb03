// The output of the workers: the last lines, which follow as long as the end is on the screen.

import { clock } from "./format.js";

const LINES_MAX = 1000;
/** Codes for the colours and the cursor of a terminal. */
const CODES = /\u001b\[[0-9;?]*[ -/]*[@-~]|[\u0000-\u0008\u000b-\u001f]/g;

export class Log {
  constructor(element) {
    this.element = element;
    this.lines = [];
    this.next = 0;
    this.filter = "";
  }

  /** Takes an answer. Returns what there is to say of it. */
  take({ lines, next, left_out: leftOut, error }) {
    if (next < this.next) this.clear();
    this.next = next;
    for (const line of lines) this.lines.push(this.make(line));
    for (const old of this.lines.splice(0, Math.max(0, this.lines.length - LINES_MAX))) old.remove();
    this.show(this.filter);
    if (error && this.lines.length === 0) return error;
    return leftOut > 0 ? `the last ${this.lines.length}; earlier ones: mobula logs` : `${this.lines.length}`;
  }

  clear() {
    for (const line of this.lines) line.remove();
    this.lines = [];
  }

  make([at, pid, stream, name, text]) {
    const line = document.createElement("div");
    line.className = stream;
    const head = document.createElement("span");
    head.textContent = `${clock(at)}  ${name} ${pid}${stream === "err" ? " (error output)" : ""}  `;
    line.append(head, text.replace(CODES, ""));
    return line;
  }

  show(filter) {
    const { element } = this;
    const isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 24;
    this.filter = filter;
    const wanted = filter.toLowerCase().split(/\s+/).filter(Boolean);
    for (const line of this.lines) {
      const text = line.textContent.toLowerCase();
      line.hidden = !wanted.every((word) => text.includes(word));
      if (!line.isConnected) element.append(line);
    }
    if (isAtEnd) element.scrollTop = element.scrollHeight;
  }
}
