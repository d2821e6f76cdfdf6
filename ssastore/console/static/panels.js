// Nodes, moves, copies and the answer to "where is a key?": text made from the model.

import { bytes, clock, element, plural, say, span } from "./text.js";

const STORY = 60;
const STALE_MS = 15000;

export function nodeState(node) {
  if (node.workers.every((ok) => ok)) {
    if (node.not_voting) return [`${plural(node.not_voting, "slice")} not voting`, "warn"];
    return node.alive === false ? ["answers, but has no lease", "warn"] : ["answers", "good"];
  }
  const silent = node.workers.filter((ok) => !ok).length;
  const where = silent === node.workers.length ? "does not answer" : `${silent} of ${node.workers.length} workers do not answer`;
  return [node.alive === false ? `${where}, absent` : where, "bad"];
}

// One row for a node, kept while it is there.
export class Nodes {
  constructor(body, choose, drain) {
    this.body = body;
    this.choose = choose;
    this.drain = drain;
    this.rows = new Map();
  }

  show(report) {
    const names = new Set(report.nodes.map((node) => node.name));
    for (const [name, row] of this.rows) {
      if (!names.has(name)) {
        row.remove();
        this.rows.delete(name);
      }
    }
    for (const node of report.nodes) this.fill(this.row(node.name), node, report.coordinator === node.name);
  }

  row(name) {
    let row = this.rows.get(name);
    if (row === undefined) {
      row = element("tr");
      const head = element("th");
      head.scope = "row";
      const button = element("button", name);
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      button.title = "Let its slices stand out on the map";
      button.addEventListener("click", () => this.choose(name));
      head.append(button);
      row.append(head);
      for (let column = 0; column < 8; column += 1) row.append(element("td"));
      row.children[2].className = "mono";
      row.children[8].className = "mono";
      const drain = element("button", "Drain");
      drain.type = "button";
      drain.setAttribute("aria-label", `Drain ${name}`);
      drain.addEventListener("click", () => this.drain(name));
      const last = element("td");
      last.append(drain);
      row.append(last);
      this.rows.set(name, row);
      this.body.append(row);
    }
    return row;
  }

  fill(row, node, isCoordinator) {
    const [text, look] = nodeState(node);
    const full = node.limit_bytes && node.used_bytes / node.limit_bytes > 0.9;
    say(row.children[1], isCoordinator ? `${text}, coordinates` : text, look);
    row.children[1].title = [...node.silent, node.says].filter(Boolean).join("; ");
    say(row.children[2], node.address);
    say(row.children[3], node.slices.toLocaleString("en"));
    say(row.children[4], node.records.toLocaleString("en"));
    say(row.children[5], `${bytes(node.used_bytes)} of ${bytes(node.limit_bytes)}`, full ? "bad" : "");
    say(row.children[6], node.cpu_s.toFixed(1));
    say(row.children[7], `${node.coming} / ${node.going}`);
    const more = node.prefixes_left ? ` and ${node.prefixes_left} more` : "";
    const shown = node.prefixes.slice(0, 3);
    const rest = node.prefixes.length - shown.length + node.prefixes_left;
    say(row.children[8], shown.join(" ") + (rest ? ` and ${rest} more` : ""));
    row.children[8].title = node.prefixes.join(" ") + more;
  }

  mark(name) {
    for (const [known, row] of this.rows) {
      row.querySelector("button").setAttribute("aria-pressed", String(known === name));
    }
  }
}

export function showMoves(model, places) {
  const moving = model.moving();
  const nodes = model.report ? model.report.nodes : [];
  const total = [...moving.values()].reduce((sum, count) => sum + count, 0);
  const known = model.report && model.report.moves;
  const isPaused = known ? known.is_paused : nodes.some((node) => node.paused);
  const ordered = known && known.left > total ? `; ${known.left.toLocaleString("en")} ordered and not done, ${known.said}` : "";
  const rate = known && !ordered ? `; ${known.said}` : "";
  const words = `${total ? `${plural(total, "slice")} under way` : "Nothing moves now"}${ordered}${rate}`;
  say(places.moving, isPaused ? `${words}; paused: Resume lets them go on` : words, isPaused ? "warn" : "");
  const lines = [...moving].map(([pair, count]) => {
    const [source, target] = pair.split(" ");
    const node = nodes.find((found) => found.name === target);
    const waits = node && node.waiting.length ? `; waits: ${node.waiting.join("; ")}` : "";
    const took = node ? `, ${bytes(node.moved_bytes)} taken since its start` : "";
    return [`${source} to ${target}: ${plural(count, "slice")}${took}${waits}`, count];
  });
  const text = lines.map(([line]) => line).join("\n");
  if (places.ribbon.dataset.text === text) return;
  places.ribbon.dataset.text = text;
  places.ribbon.replaceChildren(
    ...lines.map(([line, count]) => {
      const item = element("li", line);
      const bar = element("span", "", "bar");
      bar.style.width = `${Math.max(2, (100 * count) / total)}%`;
      item.append(bar);
      return item;
    }),
  );
}

const STORIES = {
  begun: (source, target) => `begun: ${source} to ${target}`,
  moved: (source, target) => `moved: ${source} to ${target}`,
  lost: (source, target) => (source === target ? `${target} rebuilds what it lost` : `${target} rebuilds what ${source} had`),
  recovered: (source, target) => `rebuilt at ${target}`,
  "called off": (source, target) => `called off: ${source} to ${target}`,
  split: () => "split",
  merged: () => "merged",
};

export function showStory(model, list) {
  const marks = model.marks.slice(-STORY).reverse();
  list.replaceChildren(
    ...marks.map(([ms, what, source, target, count]) =>
      element("li", `${clock(ms)}  ${plural(count, what === "split" || what === "merged" ? "group" : "slice")} ${STORIES[what](source, target)}`),
    ),
  );
  if (!marks.length) list.append(element("li", "Nothing since this gateway was started."));
}

// Green only when every worker has answered and has verified all that it holds, slice by slice.
export function showCopies(report, nowMs, health, list) {
  const { never, oldest_ms: oldest } = report.verified;
  const scrubs = report.nodes.flatMap((node) => node.scrub.map((scrub) => ({ ...scrub, node: node.name })));
  const left = scrubs.reduce((sum, scrub) => sum + scrub.left, 0);
  const isOld = nowMs - report.at_ms > STALE_MS;
  const counts = new Map();
  for (const scrub of scrubs) counts.set(scrub.health, (counts.get(scrub.health) || 0) + 1);
  const isGreen = scrubs.length > 0 && counts.get("healthy") === scrubs.length && !left && !isOld && !never;
  if (isGreen) say(health, `Verified: every slice was read, compared and found good or made good; the last one ${span(nowMs - oldest)} ago`, "good");
  else if (left) say(health, `${plural(left, "report")} of copies that are not good`, "bad");
  else if (counts.has("no answer")) say(health, `Not verified: ${plural(counts.get("no answer"), "worker")} of ${scrubs.length} silent`, "bad");
  else if (isOld) say(health, "Not verified: what is known is old", "warn");
  else say(health, never ? `Not verified yet: ${plural(never, "slice")} since the start of their workers` : "Not verified yet", "warn");
  const ends = scrubs.map((scrub) => scrub.ended_ms).filter((ms) => ms !== null);
  const lines = [...counts].map(([word, count]) => `${plural(count, "worker")}: ${word}`);
  if (ends.length) lines.push(`oldest pass that is whole: ended at ${clock(Math.min(...ends))}`);
  if (oldest !== null) lines.push(`slice that was verified longest ago: ${span(nowMs - oldest)} ago`);
  const shares = scrubs.map((scrub) => scrub.share).filter((share) => share !== null);
  if (shares.length) lines.push(`${plural(shares.length, "pass", "passes")} under way: ${Math.round((100 * shares.reduce((a, b) => a + b, 0)) / shares.length)} %`);
  const repaired = scrubs.reduce((sum, scrub) => sum + scrub.repaired, 0);
  if (repaired) lines.push(`repaired: ${repaired}`);
  if (list.dataset.text === lines.join("\n")) return;
  list.dataset.text = lines.join("\n");
  list.replaceChildren(...lines.map((line) => element("li", line)));
}

export function showSteps(answer, path, list) {
  const steps = [];
  if (answer.error) {
    steps.push(["no answer", answer.error]);
  } else {
    steps.push(["name", `${answer.bucket} / ${answer.name}  (bucket's record read in ${answer.took_us} us)`]);
    if (answer.shard !== null) steps.push(["XXH3-64 of the key", `${answer.key_hash}: shard ${answer.shard}`]);
    steps.push(["position, the 60 bits below the plane", `${answer.position}: group ${answer.group}, lane ${answer.lane}`]);
    answer.planes.forEach((plane, number) => {
      const state = plane.state === "ACTIVE" ? "" : `, ${plane.state}${plane.target ? ` to ${plane.target}` : ""}`;
      steps.push([`plane ${number}: address, slice, owner`, `${answer.addresses[number]}  in ${plane.slice}  at ${plane.owner}${state}`]);
    });
  }
  list.replaceChildren(
    ...steps.map(([what, found]) => {
      const item = element("li");
      item.append(element("b", what), element("span", found));
      return item;
    }),
  );
}
