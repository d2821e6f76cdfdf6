// What the page knows: owners of all 65,536 slices of a /80, parts of split groups, nodes, marks, seconds.
// Changed by `take` alone, with what /console/state says.

export const SLICES = 65536;
export const ACTIVE = 0;
export const MOVING = 1;
export const RECOVERING = 2;
export const SPLIT = 3;
const SECONDS_KEPT = 900;
const MARKS_KEPT = 1000;

export class Model {
  constructor() {
    this.forget();
  }

  forget() {
    this.owners = new Int16Array(SLICES).fill(-1);
    this.states = new Uint8Array(SLICES);
    this.targets = new Int16Array(SLICES).fill(-1);
    this.parts = new Map(); // By group's name: [locator, depth, owner, state, target].
    this.front = [];
    this.names = [];
    this.marks = []; // [ms, what, from, to, slices]
    this.seconds = []; // [s, count, errors, p50, p99, p99.9]
    this.report = null;
    this.heat = new Uint8Array(SLICES); // Steps, 0 to 7: see cells.py.
    this.verified = new Uint8Array(SLICES); // Steps, 0 (never) to 15.
    this.silent = new Map(); // By place of a node: which workers do not answer.
    this.workers = new Map(); // By place of a node: how many it has.
    this.told = {};
    this.offsetMs = 0;
  }

  // The query of the next question: what is known already.
  known() {
    const { instance, version, mark } = this.told;
    if (instance === undefined) return "";
    const second = this.seconds.length ? this.seconds[this.seconds.length - 1][0] : 0;
    const report = this.report ? this.report.number : 0;
    return new URLSearchParams({ instance, version, mark, second, report }).toString();
  }

  // Take an answer; what it changed: the slices (null: all of them), and whether names, nodes or parts are new.
  take(answer) {
    if (answer.is_whole) this.forget();
    const names = answer.names.length !== this.names.length;
    this.names = answer.names;
    this.told = answer;
    this.offsetMs = answer.now_ms - answer.now_s * 1000;
    const slices = [];
    for (const [first, count, owner, state, target] of answer.runs) {
      this.owners.fill(owner, first, first + count);
      this.states.fill(state, first, first + count);
      this.targets.fill(target, first, first + count);
      for (let number = first; number < first + count; number += 1) slices.push(number);
    }
    const cut = this.takeParts(answer);
    keep(this.marks, answer.marks, MARKS_KEPT);
    keep(this.seconds, answer.seconds, SECONDS_KEPT);
    const nodes = answer.report !== null;
    const isRepainted = nodes && this.takeReport(answer.report);
    const told = nodes ? this.takeCells(answer.report) : [];
    return { slices: answer.is_whole || names || isRepainted ? null : slices, names, nodes, cut, told };
  }

  // Of which slices heat or verification is another one than before.
  takeCells(report) {
    const told = [];
    const heat = unpack(report.heat.cells, this.heat, told);
    const verified = unpack(report.verified.cells, this.verified, told);
    this.heat = heat;
    this.verified = verified;
    return told;
  }

  takeParts(answer) {
    const before = JSON.stringify(this.front);
    this.front = answer.front;
    let isChanged = before !== JSON.stringify(this.front);
    for (const [first, count] of answer.runs) {
      for (let number = first; number < first + count && this.parts.size; number += 1) {
        isChanged = this.parts.delete((number & 0xfff).toString(16).padStart(3, "0")) || isChanged;
      }
    }
    for (const [name, parts] of Object.entries(answer.parts)) {
      this.parts.set(name, parts);
      isChanged = true;
    }
    return isChanged;
  }

  takeReport(report) {
    const before = JSON.stringify([...this.silent]);
    this.report = report;
    this.silent.clear();
    for (const node of report.nodes) {
      const place = this.names.indexOf(node.name);
      this.workers.set(place, node.workers.length);
      const silent = node.workers.flatMap((ok, worker) => (ok ? [] : [worker]));
      if (silent.length) this.silent.set(place, silent);
    }
    return before !== JSON.stringify([...this.silent]);
  }

  // Whether the worker that has a slice does not answer: lane modulo workers is its number.
  isSilent(number, owner = this.owners[number]) {
    const silent = this.silent.get(owner);
    return silent !== undefined && silent.includes((number & 15) % this.workers.get(owner));
  }

  // Slices under way, by "source target": how many.
  moving() {
    const found = new Map();
    const count = (owner, state, target) => {
      if (state !== MOVING) return;
      const pair = `${this.names[owner]} ${this.names[target]}`;
      found.set(pair, (found.get(pair) || 0) + 1);
    };
    for (let number = 0; number < SLICES; number += 1) {
      if (this.states[number] === MOVING) count(this.owners[number], MOVING, this.targets[number]);
    }
    for (const parts of this.parts.values()) for (const [, , ...cell] of parts) count(...cell);
    return found;
  }

  // The smallest slice known at a locator: { locator, depth, owner, state, target }.
  at(locator) {
    const number = Math.floor(locator / 65536);
    const group = (number & 0xfff).toString(16).padStart(3, "0");
    for (const list of [this.parts.get(group) || [], this.front]) {
      for (const [first, depth, owner, state, target] of list) {
        if (first <= locator && locator < first + 2 ** (32 - depth)) {
          return { number, locator: first, depth, owner, state, target };
        }
      }
    }
    const cell = { owner: this.owners[number], state: this.states[number], target: this.targets[number] };
    return { number, locator: number * 65536, depth: 16, ...cell };
  }
}

// Four bits a slice, in base64; `told` gets the numbers of those that differ from `before`.
function unpack(text, before, told) {
  const found = new Uint8Array(SLICES);
  const packed = atob(text);
  for (let at = 0; at < packed.length; at += 1) {
    const byte = packed.charCodeAt(at);
    found[2 * at] = byte >> 4;
    found[2 * at + 1] = byte & 15;
  }
  for (let number = 0; number < SLICES; number += 1) if (found[number] !== before[number]) told.push(number);
  return found;
}

function keep(list, more, most) {
  for (const item of more) list.push(item);
  if (list.length > most) list.splice(0, list.length - most);
}

// A prefix in the service's /64 as people write it: the service is like "fd5a:1:2:3::/64".
export function prefixText(service, locator, depth) {
  const groups = hextets(service);
  const high = Math.floor(locator / 65536);
  const low = locator % 65536;
  const words = low ? [high, low] : high ? [high] : [];
  return `${groups.join(":")}:${words.map((word) => word.toString(16)).join(":")}${words.length ? "::" : ":"}/${64 + depth}`;
}

function hextets(service) {
  const [left, right] = service.split("/")[0].split("::");
  const words = left ? left.split(":") : [];
  const rest = right ? right.split(":") : [];
  while (words.length + rest.length < 8) words.push("0");
  return [...words, ...rest].slice(0, 4);
}

// What somebody types to look at: "1a3f", "1a/72", a prefix or an address of the service; null: it is none.
export function parsePrefix(service, text) {
  const words = text.trim().toLowerCase().split("/");
  if (words.length > 2 || !words[0]) return null;
  let digits = words[0];
  if (digits.includes(":")) {
    const full = addressDigits(digits);
    if (full === null || full.slice(0, 16) !== addressDigits(service.split("/")[0]).slice(0, 16)) return null;
    digits = full.slice(16, 24);
  }
  if (!/^[0-9a-f]{1,8}$/.test(digits)) return null;
  const length = words.length === 2 ? Number(words[1]) : text.includes(":") ? 96 : 64 + 4 * digits.length;
  if (!Number.isInteger(length) || length < 64 || length > 96) return null;
  const depth = length - 64;
  const locator = parseInt(digits.padEnd(8, "0"), 16);
  return { locator: Math.floor(locator / 2 ** (32 - depth)) * 2 ** (32 - depth), depth };
}

function addressDigits(address) {
  const halves = address.split("::");
  if (halves.length > 2) return null;
  const [left, right] = halves.map((half) => (half ? half.split(":") : []));
  const words = right === undefined ? left : [...left, ...Array(Math.max(0, 8 - left.length - right.length)).fill("0"), ...right];
  if (words.length !== 8 || !words.every((word) => /^[0-9a-f]{1,4}$/.test(word))) return null;
  return words.map((word) => word.padStart(4, "0")).join("");
}
