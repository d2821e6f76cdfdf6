// The page: asks every second what is new, and tells the panels.

import { Acts } from "./acts.js";
import { colourOf, css } from "./colours.js";
import { Door } from "./door.js";
import { Latency } from "./latency.js";
import { AddressMap } from "./map.js";
import { Model, parsePrefix, prefixText } from "./model.js";
import { Network } from "./network.js";
import { Objects } from "./objects.js";
import { Nodes, showCopies, showMoves, showSteps, showStory } from "./panels.js";
import { at, bytes, element, plural, quoted, say, span } from "./text.js";

const EVERY_MS = Math.max(50, Number(new URLSearchParams(location.search).get("every")) || 1000);
const HIDDEN_MS = 10000;
const PATIENCE_MS = 5000;
const STATES = ["", "moving to", "rebuilt", "split"];

const model = new Model();
const map = new AddressMap(at("map"), model);
const latency = new Latency(at("latency"), at("figures"), model);
const door = new Door(changedWho);
const acts = new Acts(door);
const objects = new Objects(door, () => model.told.region);
const nodes = new Nodes(at("nodes"), choose, (node) => acts.drain(node));
const network = new Network({ body: at("routes"), words: at("truth"), differences: at("differences"), ended: at("ended") });
const dark = matchMedia("(prefers-color-scheme: dark)");

// -- the loop --

let silentSince = 0;
let timer = 0;
let turn = 0;

// One question at a time: one that is asked meanwhile takes the place of the one before, whose answer is late.
async function ask() {
  const began = performance.now();
  turn += 1;
  const mine = turn;
  try {
    const response = await fetch(`/console/state?${model.known()}`, { signal: AbortSignal.timeout(PATIENCE_MS) });
    const answer = response.ok ? await response.json() : null;
    if (mine !== turn) return;
    if (response.status === 401) {
      say(at("live"), "Nothing is shown before you log in", "warn");
      if (!silentSince) door.ask();
      silentSince ||= Date.now();
    } else {
      if (!response.ok) throw new Error(`status ${response.status}`);
      tick(answer);
      silentSince = 0;
    }
  } catch (error) {
    if (mine !== turn) return;
    silentSince ||= Date.now();
    say(at("live"), `No answer from the gateway for ${Math.round((Date.now() - silentSince) / 1000)} s: all below is old`, "bad");
  }
  timer = setTimeout(ask, Math.max(0, (document.hidden ? HIDDEN_MS : EVERY_MS) - (performance.now() - began)));
}

// Somebody has come in, or gone: the key that a login was lent is no key any more.
function changedWho() {
  if (!door.mayAct) objects.forget();
  askNow();
}

function askNow() {
  clearTimeout(timer);
  ask();
}

function tick(answer) {
  door.show(answer.may_act);
  const { slices, names, nodes: hasNodes, cut, told } = model.take(answer);
  if (slices === null || cut) map.paintAll();
  else map.paintSome(slices);
  map.paintLater(told);
  if (answer.is_whole || names) showLegend();
  if (answer.is_whole) showFacts(answer);
  if (hasNodes) {
    nodes.show(model.report);
    network.show({ ...model.report.network, at_ms: model.report.at_ms });
    showHeat();
    showCopies(model.report, answer.now_ms, at("health"), at("scrubs"));
  }
  if (answer.is_whole || slices === null || slices.length || hasNodes || cut) {
    showMoves(model, { moving: at("moving"), ribbon: at("ribbon") });
  }
  if (answer.is_whole || answer.marks.length) showStory(model, at("story"));
  if (answer.seconds.length) latency.refresh();
  const age = model.report ? answer.now_ms - model.report.at_ms : 0;
  if (age > 15000) say(at("live"), `Live; but nodes were last heard ${Math.round(age / 1000)} s ago`, "warn");
  else say(at("live"), "Live", "good");
}

function showFacts(answer) {
  say(at("service"), answer.service);
  say(at("facts"), `${plural(answer.replicas, "replica")} · cluster ${answer.cluster_id.slice(0, 8)} · version ${answer.software}`);
  say(at("metrics-cli"), `curl ${location.origin}/metrics`);
  showSeen();
}

// -- the map --

function showLegend() {
  at("legend").replaceChildren(
    ...model.names.map((name, place) => {
      const item = element("li");
      const button = element("button");
      const sample = element("i", "", "sample");
      sample.style.background = css(colourOf(place, map.isDark));
      button.type = "button";
      button.setAttribute("aria-pressed", String(map.chosen === place));
      button.append(sample, name);
      button.addEventListener("click", () => choose(name));
      item.append(button);
      return item;
    }),
  );
}

function choose(name) {
  const place = model.names.indexOf(name);
  map.chosen = map.chosen === place ? -1 : place;
  nodes.mark(map.chosen < 0 ? "" : name);
  say(at("drain-cli"), `ssastore plan --drain ${map.chosen < 0 ? "NODE" : name} --out plan.json`);
  [...at("legend").children].forEach((item, number) => {
    item.firstChild.setAttribute("aria-pressed", String(number === map.chosen));
  });
  map.paintAll();
}

function showHeat() {
  const { top } = model.report.heat;
  const words = map.isDark ? "brighter" : "darker";
  say(at("hot"), top >= 0.05 ? `${words}: more calls; the hottest slice has ${top < 10 ? top.toFixed(1) : Math.round(top)} a second` : `${words}: more calls; there are next to none now`);
}

function showSeen() {
  say(at("seen"), prefixText(model.told.service, map.view.locator, map.view.depth));
}

function zoom(by) {
  const depth = Math.min(28, Math.max(0, map.view.depth + 2 * by));
  map.look(by > 0 ? map.cursor : map.view.locator, depth);
  showSeen();
}

function tellUnder() {
  const found = model.at(map.cursor);
  const owner = found.owner < 0 ? "nobody" : model.names[found.owner];
  const target = found.state === 1 ? ` ${model.names[found.target]}` : "";
  const state = STATES[found.state] ? `, ${STATES[found.state]}${target}` : "";
  const silent = model.isSilent(Math.floor(found.locator / 65536), found.owner) ? "; its worker does not answer" : "";
  const node = model.report && model.report.nodes.find((known) => known.name === owner);
  const more = node ? ` (${plural(node.records, "record")}, ${bytes(node.used_bytes)} at this node)` : "";
  const heat = model.heat[found.number];
  const calls = heat ? `; about ${(model.report.heat.top / 2 ** (7 - heat)).toPrecision(2)} calls a second` : "";
  const age = model.verified[found.number];
  const checked = found.owner < 0 || !node ? "" : age ? `; verified ${age < 2 ? "in the last minute" : `some ${span(30000 * 2 ** age)} ago`}` : "; not verified yet";
  say(at("under"), `${prefixText(model.told.service, found.locator, found.depth)} · ${owner}${state}${silent}${calls}${checked}${more}`);
}

function pointed(event) {
  const box = at("map").getBoundingClientRect();
  map.cursor = map.locatorAt((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  map.isCursorShown = true;
  map.draw();
  if (model.told.service) tellUnder();
}

const KEYS = {
  ArrowLeft: () => map.step(-1, 0),
  ArrowRight: () => map.step(1, 0),
  ArrowUp: () => map.step(0, -1),
  ArrowDown: () => map.step(0, 1),
  "+": () => zoom(1),
  "=": () => zoom(1),
  "-": () => zoom(-1),
  Escape: () => zoom(-16),
  Home: () => zoom(-16),
};

at("field").addEventListener("keydown", (event) => {
  const act = KEYS[event.key];
  if (act === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  map.isCursorShown = true;
  act();
  if (model.told.service) tellUnder();
});
at("field").addEventListener("pointermove", pointed);
at("field").addEventListener("dblclick", (event) => {
  pointed(event);
  zoom(1);
});
at("in").addEventListener("click", () => zoom(1));
at("out").addEventListener("click", () => zoom(-1));
at("whole").addEventListener("click", () => zoom(-16));
at("look").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = model.told.service && parsePrefix(model.told.service, at("prefix").value);
  at("prefix").setAttribute("aria-invalid", String(!wanted));
  if (!wanted) {
    say(at("under"), "That is no slice, prefix or address of this service. Write it like 1a3f, 1/68, or as a whole.");
    return;
  }
  map.cursor = wanted.locator;
  map.isCursorShown = true;
  // A slice by itself would be one colour: it is shown with its neighbours.
  map.look(wanted.locator, wanted.depth > 4 ? wanted.depth - 4 : wanted.depth);
  showSeen();
  tellUnder();
});

// -- a key --

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const path = at("path").value.trim();
  say(at("explain-cli"), `ssastore explain ${quoted(path) || "BUCKET/KEY"}`);
  let answer;
  try {
    const response = await fetch(`/console/explain?${new URLSearchParams({ path })}`, { signal: AbortSignal.timeout(2 * PATIENCE_MS) });
    answer = await response.json();
  } catch (error) {
    answer = { error: "the gateway does not answer" };
  }
  showSteps(answer, path, at("steps"));
  const places = answer.error ? [] : answer.addresses.map((address) => parsePrefix(model.told.service, address));
  map.pins = places.map((place, plane) => ({ locator: model.at(place.locator).locator, depth: model.at(place.locator).depth, label: `plane ${plane}` }));
  map.draw();
});

// -- looks --

for (const button of document.querySelectorAll("[data-back]")) {
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll("[data-back]")) other.setAttribute("aria-pressed", String(other === button));
    latency.look(Number(button.dataset.back));
  });
}

function applyTheme() {
  const isDark = at("theme").value ? at("theme").value === "dark" : dark.matches;
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  map.setTheme(isDark);
  latency.draw();
  showLegend();
  if (model.report) showHeat();
}

at("paints").addEventListener("change", () => {
  map.paints = at("paints").value;
  map.paintAll();
  at("ages").hidden = map.paints !== "verified";
});

at("theme").value = localStorage.getItem("theme") || "";
at("theme").addEventListener("change", () => {
  localStorage.setItem("theme", at("theme").value);
  applyTheme();
});
dark.addEventListener("change", applyTheme);
window.addEventListener("resize", () => latency.draw());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) latency.draw();
});
applyTheme();
door.begin().then(askNow);
