// The map on its canvas. The whole /64 is painted once, 4 by 4 points for a slice, on paper that is never seen; what
// is seen is a square cut out of it. Only slices that changed are painted again.

import { ageColour, colourOf, css, heated, HEAT_STEPS } from "./colours.js";
import { cell, point, rectangle } from "./hilbert.js";
import { MOVING, RECOVERING, SLICES } from "./model.js";

const POINTS = 4; // Of a slice, each way.
const SIDE = 256 * POINTS;
const ORDER = 8;
const FRONT = 0xf000; // From here on addresses are gateways', which hold nothing.
const PAINTED_A_TICK = 4096; // Of slices whose heat has changed: the others wait for the next ticks.

export class AddressMap {
  constructor(canvas, model) {
    this.canvas = canvas;
    this.model = model;
    this.context = canvas.getContext("2d", { alpha: false });
    canvas.width = canvas.height = SIDE;
    this.paper = document.createElement("canvas");
    this.paper.width = this.paper.height = SIDE;
    this.ink = this.paper.getContext("2d", { alpha: false });
    this.image = this.ink.createImageData(SIDE, SIDE);
    this.points = new Uint32Array(this.image.data.buffer);
    this.corners = new Uint32Array(SLICES);
    for (let number = 0; number < SLICES; number += 1) {
      const [x, y] = point(ORDER, number);
      this.corners[number] = y * POINTS * SIDE + x * POINTS;
    }
    this.view = { locator: 0, depth: 0 };
    this.cursor = 0; // A locator.
    this.isCursorShown = false;
    this.chosen = -1; // The owner whose slices stand out.
    this.pins = [];
    this.paints = "owner"; // Or "verified".
    this.waiting = new Set();
    this.frame = 0;
    this.setTheme(true);
  }

  setTheme(isDark) {
    this.isDark = isDark;
    this.nobody = pack(isDark ? [27, 31, 38] : [236, 238, 241]);
    this.alarm = pack(isDark ? [255, 92, 92] : [205, 16, 32]);
    this.blank = pack(isDark ? [13, 16, 20] : [255, 255, 255]);
    this.paintAll();
  }

  // All of it: names, theme, or which nodes answer have changed.
  paintAll() {
    this.waiting.clear();
    this.colours = this.model.names.map((_, place) => this.shades(place));
    this.ages = Array.from({ length: 16 }, (_, step) => pack(ageColour(step, this.isDark)));
    for (let number = 0; number < SLICES; number += 1) this.paint(number);
    this.paintParts();
    this.ink.putImageData(this.image, 0, 0);
    this.draw();
  }

  paintSome(slices) {
    let [left, top, right, bottom] = [SIDE, SIDE, 0, 0];
    for (const number of slices) {
      this.paint(number);
      const [x, y] = [this.corners[number] % SIDE, Math.floor(this.corners[number] / SIDE)];
      [left, top] = [Math.min(left, x), Math.min(top, y)];
      [right, bottom] = [Math.max(right, x + POINTS), Math.max(bottom, y + POINTS)];
    }
    if (right > left) this.ink.putImageData(this.image, 0, 0, left, top, right - left, bottom - top);
    if (slices.length) this.draw();
  }

  // What is told of slices now and then; not all at once, so that no tick takes long.
  paintLater(slices) {
    for (const number of slices) this.waiting.add(number);
    const some = [];
    for (const number of this.waiting) {
      if (some.length === PAINTED_A_TICK) break;
      some.push(number);
      this.waiting.delete(number);
    }
    this.paintSome(some);
    if (some.length) this.paintParts();
  }

  // Of an owner, by heat.
  shades(place) {
    const colour = colourOf(place, this.isDark);
    const ground = this.isDark ? 24 : 244;
    const isFaint = this.chosen >= 0 && this.chosen !== place;
    return Array.from({ length: HEAT_STEPS }, (_, step) => {
      const hot = heated(colour, step, this.isDark);
      return pack(isFaint ? hot.map((part) => Math.round(part * 0.22 + ground * 0.78)) : hot);
    });
  }

  colour(place, number) {
    if (place < 0) return this.nobody;
    if (this.paints === "verified" && number >= FRONT) return this.nobody;
    if (this.paints === "verified") return this.ages[this.model.verified[number]];
    return this.colours[place][this.model.heat[number]];
  }

  paint(number) {
    const { owners, states, targets } = this.model;
    const [owner, corner] = [owners[number], this.corners[number]];
    const colours = [this.colour(owner, number), this.colour(targets[number], number)];
    this.paintBlock(corner, POINTS, colours[0], states[number], colours[1], this.model.isSilent(number));
  }

  // Moving: stripes of source and target. Recovering: a dot in the middle. No answer: broad red stripes.
  paintBlock(corner, side, colour, state, target, isSilent) {
    for (let y = 0; y < side; y += 1) {
      const row = corner + y * SIDE;
      if (state === MOVING) {
        for (let x = 0; x < side; x += 1) this.points[row + x] = ((x + y) & 3) < 2 ? colour : target;
      } else if (isSilent) {
        for (let at = row; at < row + side; at += 1) this.points[at] = isRed(at) ? this.alarm : colour;
      } else {
        this.points.fill(colour, row, row + side);
      }
    }
    if (state === RECOVERING && side === POINTS) {
      for (const at of [1, 2]) this.points.fill(this.blank, corner + at * SIDE + 1, corner + at * SIDE + 3);
    }
  }

  // Parts of split groups as fine as the paper is, and what gateways have of the front plane.
  paintParts() {
    for (const [locator, depth, owner] of this.model.front) this.paintRectangle(locator, depth, owner, 0, -1);
    for (const parts of this.model.parts.values()) {
      for (const [locator, depth, ...rest] of parts) this.paintRectangle(locator, depth, ...rest);
    }
  }

  paintRectangle(locator, depth, owner, state, target) {
    const [x, y, width, height] = rectangle(locator, depth).map((part) => Math.round(part * SIDE));
    const number = Math.floor(locator / 65536);
    const [ground, other] = [this.colour(owner, number), this.colour(target, number)];
    const isSilent = this.model.isSilent(number, owner);
    for (let row = y; row < y + Math.max(1, height); row += 1) {
      for (let column = x; column < x + Math.max(1, width); column += 1) {
        let colour = ground;
        if (state === MOVING) colour = ((row + column) & 3) < 2 ? ground : other;
        else if (isSilent && isRed(row * SIDE + column)) colour = this.alarm;
        this.points[row * SIDE + column] = colour;
      }
    }
  }

  draw() {
    if (!this.frame) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.drawNow();
      });
    }
  }

  drawNow() {
    const { context } = this;
    const [x, y, width] = rectangle(this.view.locator, this.view.depth);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.paper, x * SIDE, y * SIDE, width * SIDE, width * SIDE, 0, 0, SIDE, SIDE);
    if (this.view.depth >= 8) this.drawParts();
    this.drawGrid();
    for (const pin of this.pins) this.outline(pin.locator, pin.depth, "#fff", 5, pin.label);
    if (this.isCursorShown) {
      const found = this.model.at(this.cursor);
      this.outline(found.locator, found.depth, this.isDark ? "#fff" : "#000", 3, "");
    }
  }

  // [x, y, width, height] of a prefix on the canvas, as it is cut out now.
  place(locator, depth) {
    const [x, y, width] = rectangle(this.view.locator, this.view.depth);
    const [px, py, pw, ph] = rectangle(locator, depth);
    return [(px - x) / width, (py - y) / width, pw / width, ph / width].map((part) => part * SIDE);
  }

  // Far in, parts are larger than a point of the paper.
  drawParts() {
    for (const parts of this.model.parts.values()) {
      for (const [locator, depth, owner] of parts) {
        if (depth <= 20 || !this.isSeen(locator, depth)) continue;
        const [x, y, width, height] = this.place(locator, depth);
        this.context.fillStyle = css(unpack(this.colour(owner, Math.floor(locator / 65536))));
        this.context.fillRect(x, y, width, height);
      }
    }
  }

  isSeen(locator, depth) {
    const shift = 2 ** (32 - Math.min(depth, this.view.depth));
    return Math.floor(locator / shift) === Math.floor(this.view.locator / shift);
  }

  // Sixteen fields: hexadecimal digits of the address at this depth, as a name for each.
  drawGrid() {
    const { context, view } = this;
    const depth = Math.min(32, view.depth + 4);
    const size = 2 ** (32 - depth);
    context.lineWidth = 2;
    context.strokeStyle = this.isDark ? "rgba(255,255,255,.35)" : "rgba(0,0,0,.35)";
    context.font = "600 26px system-ui, sans-serif";
    context.textBaseline = "top";
    for (let field = 0; field < 2 ** (depth - view.depth); field += 1) {
      const [x, y, width, height] = this.place(view.locator + field * size, depth);
      context.strokeRect(x, y, width, height);
      const text = (view.locator + field * size).toString(16).padStart(8, "0").slice(0, Math.ceil(depth / 4));
      context.fillStyle = this.isDark ? "rgba(10,13,17,.72)" : "rgba(255,255,255,.82)";
      context.fillRect(x + 4, y + 4, context.measureText(text).width + 12, 32);
      context.fillStyle = this.isDark ? "#e8edf3" : "#15191f";
      context.fillText(text, x + 10, y + 8);
    }
  }

  outline(locator, depth, colour, width, label) {
    if (!this.isSeen(locator, depth) || depth < this.view.depth) return;
    const { context } = this;
    let [x, y, across, down] = this.place(locator, depth);
    const grow = Math.max(0, 14 - across) / 2;
    [x, y, across, down] = [x - grow, y - grow, across + 2 * grow, down + 2 * grow];
    context.lineWidth = width + 3;
    context.strokeStyle = this.isDark ? "#000" : "#fff";
    context.strokeRect(x, y, across, down);
    context.lineWidth = width;
    context.strokeStyle = this.isDark ? colour : "#000";
    context.strokeRect(x, y, across, down);
    if (!label) return;
    context.fillStyle = this.isDark ? "#000" : "#fff";
    const wide = context.measureText(label).width + 12;
    const left = Math.min(x + across + 6, SIDE - wide);
    context.fillRect(left, y, wide, 32);
    context.fillStyle = this.isDark ? "#fff" : "#000";
    context.fillText(label, left + 6, y + 4);
  }

  // The locator under a point of the canvas, each way 0 to 1.
  locatorAt(across, down) {
    const [x, y, width] = rectangle(this.view.locator, this.view.depth);
    const step = (part) => Math.min(65535, Math.max(0, Math.floor(part * 65536)));
    return cell(16, step(x + across * width), step(y + down * width));
  }

  // Look at the square that a prefix is in; of an odd length, at the next shorter one.
  look(locator, depth) {
    const even = Math.min(28, depth - (depth % 2));
    const size = 2 ** (32 - even);
    this.view = { locator: Math.floor(locator / size) * size, depth: even };
    this.draw();
  }

  // Move the cursor by slices of what is seen.
  step(across, down) {
    const found = this.model.at(this.cursor);
    const unit = Math.max(1, 2 ** (16 - Math.floor(Math.max(found.depth, 16) / 2)));
    const [x, y] = point(16, this.cursor);
    const move = (at, by) => Math.min(65535, Math.max(0, at + by * unit));
    this.cursor = cell(16, move(x, across), move(y, down));
    if (!this.isSeen(this.cursor, 32)) this.look(this.cursor, this.view.depth);
    this.draw();
  }
}

// Of a point of the paper: stripes that go on from slice to slice, or a single one would be as broad as they are.
function isRed(at) {
  return (((at & (SIDE - 1)) - Math.floor(at / SIDE)) & 7) < 4;
}

function pack([r, g, b]) {
  return (255 << 24) | (b << 16) | (g << 8) | r;
}

function unpack(packed) {
  return [packed & 255, (packed >> 8) & 255, (packed >> 16) & 255];
}
