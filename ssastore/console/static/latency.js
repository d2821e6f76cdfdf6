// Times of requests over the last minutes or the last day, on a logarithmic scale, with a line for each moment at
// which slices moved. Seconds come with the state; what is older is asked for when somebody looks so far back.

import { millis, span } from "./text.js";

const LINES = [
  [3, "p50", []],
  [4, "p99", [7, 4]],
  [5, "p99.9", [2, 3]],
];
const MARKED = { begun: 0, moved: 1, lost: 2, recovered: 1, "called off": 0, split: 0, merged: 0 };
const NEAR = 900; // Seconds that come with the state.
const [LEFT, RIGHT, TOP, BOTTOM] = [52, 44, 8, 62];

export class Latency {
  constructor(canvas, figures, model) {
    this.canvas = canvas;
    this.figures = figures;
    this.model = model;
    this.back = 120;
    this.past = null; // What is older than a quarter of an hour, when somebody looks so far back.
    this.entries = new Map();
    for (const name of ["requests/s", "p50", "p99", "p99.9", "errors"]) {
      const term = document.createElement("dt");
      term.textContent = name;
      const value = document.createElement("dd");
      const pair = document.createElement("div");
      pair.append(term, value);
      figures.append(pair);
      this.entries.set(name, value);
    }
  }

  look(back) {
    this.back = back;
    this.past = null;
    this.askedMs = -Infinity;
    this.refresh();
  }

  // Draw, and once a step ask for what is older.
  async refresh() {
    this.draw();
    if (this.back <= NEAR || performance.now() - this.askedMs < (this.past ? this.past.step * 1000 : 5000)) return;
    this.askedMs = performance.now();
    try {
      const answer = await fetch(`/console/past?back=${this.back}`, { signal: AbortSignal.timeout(5000) });
      if (answer.ok) this.past = await answer.json();
    } catch (error) {
      return; // Asked for again with the next step.
    }
    this.draw();
  }

  // Rows, moves, the last second, and seconds of a row.
  shown() {
    const { seconds, marks } = this.model;
    const end = seconds.length ? seconds[seconds.length - 1][0] : 0;
    if (this.back <= NEAR) return { rows: seconds.slice(-this.back), marks, end, step: 1 };
    if (!this.past) return { rows: [], marks: [], end, step: 60 };
    return { rows: this.past.rows, marks: this.past.marks, end: Math.floor(this.past.now_s), step: this.past.step };
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    if (this.canvas.width !== Math.round(width * ratio)) this.canvas.width = Math.round(width * ratio);
    if (this.canvas.height !== Math.round(height * ratio)) this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    this.ink = Object.fromEntries(["ink", "soft", "line", "accent", "bad", "warn"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = "11px system-ui, sans-serif";
    const { rows, marks, end, step } = this.shown();
    const x = (second) => LEFT + ((second - end + this.back) / this.back) * (width - LEFT - RIGHT);
    const highest = Math.max(2000, ...rows.map((row) => row[5]));
    const [low, high] = [Math.log10(100), Math.log10(highest * 1.3)];
    const floor = height - BOTTOM;
    const y = (us) => floor - ((Math.log10(Math.max(us, 100)) - low) / (high - low)) * (floor - TOP);
    this.scale(context, width, y, highest);
    this.rate(context, rows, x, width, height, step);
    this.marks(context, marks, x, floor, end);
    const ends = LINES.map(([column, name, dash]) => [this.line(context, rows, x, y, column, dash, step), name]);
    if (rows.length && rows[rows.length - 1][1]) this.names(context, ends);
    this.times(context, x, end, height);
    this.tell(this.model.seconds);
  }

  scale(context, width, y, highest) {
    context.strokeStyle = this.ink.line;
    context.fillStyle = this.ink.soft;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.lineWidth = 1;
    for (let us = 100; us <= highest * 1.3; us *= 10) {
      stroke(context, [[LEFT, y(us)], [width - RIGHT, y(us)]]);
      context.fillText(us < 1000 ? `${us} us` : us < 1000000 ? `${us / 1000} ms` : `${us / 1000000} s`, LEFT - 6, y(us));
    }
  }

  // Requests a second: bars below, errors in them red.
  rate(context, rows, x, width, height, step) {
    const most = Math.max(1, ...rows.map((row) => row[1]));
    const [base, tall] = [height - 20, 30];
    const wide = Math.max(1, ((width - LEFT - RIGHT) * step) / this.back - 0.5);
    for (const [second, count, errors] of rows) {
      context.fillStyle = this.ink.soft;
      context.fillRect(x(second) - wide, base - (count / most) * tall, wide, (count / most) * tall);
      context.fillStyle = this.ink.bad;
      if (errors) context.fillRect(x(second) - wide, base - Math.max(3, (errors / most) * tall), wide, Math.max(3, (errors / most) * tall));
    }
    context.fillStyle = this.ink.soft;
    context.textAlign = "right";
    context.fillText(`${most < step ? (most / step).toFixed(1) : Math.round(most / step)}/s`, LEFT - 6, base - tall + 4);
  }

  marks(context, marks, x, floor, end) {
    for (const [ms, what] of marks) {
      const second = (ms - this.model.offsetMs) / 1000;
      if (second < end - this.back) continue;
      context.strokeStyle = [this.ink.warn, this.ink.accent, this.ink.bad][MARKED[what]];
      context.lineWidth = 1;
      context.globalAlpha = 0.45;
      stroke(context, [[x(second), TOP], [x(second), floor]]);
    }
    context.globalAlpha = 1;
  }

  // Of the lines, at their ends and never one over another.
  names(context, ends) {
    context.fillStyle = this.ink.ink;
    context.textAlign = "left";
    let above = Infinity;
    for (const [[x, y], name] of ends) {
      above = Math.min(y, above - 12);
      context.fillText(name, x + 4, above);
    }
  }

  // Where it ends.
  line(context, rows, x, y, column, dash, step) {
    context.strokeStyle = column === 3 ? this.ink.accent : this.ink.ink;
    context.lineWidth = column === 3 ? 2 : 1.2;
    context.setLineDash(dash);
    context.beginPath();
    let isDown = false;
    let last = null;
    let before = -Infinity;
    for (const row of rows) {
      if (row[0] - before > 1.5 * step) isDown = false;
      before = row[0];
      if (!row[1]) {
        isDown = false;
        continue;
      }
      last = [x(row[0]), y(row[column])];
      if (isDown) context.lineTo(...last);
      else context.moveTo(...last);
      isDown = true;
    }
    context.stroke();
    context.setLineDash([]);
    return last;
  }

  times(context, x, end, height) {
    context.fillStyle = this.ink.soft;
    context.textAlign = "center";
    const step = { 120: 30, 900: 180, 10800: 1800, 86400: 14400 }[this.back];
    for (let ago = 0; ago < this.back; ago += step) {
      context.fillText(ago ? `-${span(ago * 1000)}` : "now", x(end - ago), height - 9);
    }
  }

  // The last ten seconds as text: what the picture shows to who cannot see it.
  tell(rows) {
    const recent = rows.slice(-10);
    const count = recent.reduce((sum, row) => sum + row[1], 0);
    const worst = (column) => Math.max(0, ...recent.map((row) => row[column]));
    const middle = recent.filter((row) => row[1]).map((row) => row[3]).sort((a, b) => a - b);
    const found = {
      "requests/s": recent.length ? (count / recent.length).toFixed(count < 100 ? 1 : 0) : "-",
      p50: millis(middle.length ? middle[Math.floor(middle.length / 2)] : 0),
      p99: millis(worst(4)),
      "p99.9": millis(worst(5)),
      errors: String(recent.reduce((sum, row) => sum + row[2], 0)),
    };
    for (const [name, value] of this.entries) if (value.textContent !== found[name]) value.textContent = found[name];
  }
}

function stroke(context, points) {
  context.beginPath();
  context.moveTo(...points[0]);
  for (const point of points.slice(1)) context.lineTo(...point);
  context.stroke();
}
