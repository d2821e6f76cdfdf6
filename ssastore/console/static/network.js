// Control store against kernels against BGP: a row for each node, and every difference with what to do about it.

import { clock, element, plural, say, span } from "./text.js";

const COLUMNS = ["wanted", "accepted", "sent_on", "announced"];

export class Network {
  constructor(places) {
    this.places = places;
    this.rows = new Map();
  }

  show(network) {
    const names = new Set(network.nodes.map((row) => row.name));
    for (const [name, row] of this.rows) {
      if (!names.has(name)) {
        row.remove();
        this.rows.delete(name);
      }
    }
    // What is there for some seconds only is a move on its way: a number, and no alarm.
    const red = network.differences.filter((found) => found.is_red);
    const wrong = new Set(red.map((found) => found.node));
    for (const row of network.nodes) this.fill(this.row(row.name), row, wrong.has(row.name));
    this.sum(network, red.length);
    list(this.places.differences, red.map((found) => ({ text: found.words, look: "bad", when: `for ${span(network.at_ms - found.since_ms)}` })));
    list(this.places.ended, network.ended.slice(0, 10).map((found) => ({
      text: `${found.node}: ${found.kind}, ${found.what}`,
      look: "",
      when: `${clock(found.since_ms)}, for ${span(found.ended_ms - found.since_ms)}`,
    })));
  }

  sum(network, red) {
    const silent = network.nodes.filter((row) => !row.is_heard && row.wanted).length;
    const others = network.nodes.filter((row) => row.is_heard && !row.is_kept).length;
    if (red && network.count > network.differences.length) say(this.places.words, `${plural(network.count, "difference")}; the first ${network.differences.length} are below`, "bad");
    else if (red) say(this.places.words, `${plural(red, "difference")}: the network is not as the control store has it`, "bad");
    else if (silent) say(this.places.words, `Not known: ${plural(silent, "node")} of ${network.nodes.length} did not say what its kernel has`, "warn");
    else if (others) say(this.places.words, `${plural(others, "node")} of ${network.nodes.length} keep no routes themselves: nothing to compare there`, "warn");
    else if (network.count) say(this.places.words, `As the control store has it, but for ${plural(network.count, "prefix", "prefixes")} that changed just now`, "good");
    else say(this.places.words, `As the control store has it, at all ${plural(network.nodes.filter((row) => row.is_heard).length, "node")} that own anything`, "good");
  }

  row(name) {
    let row = this.rows.get(name);
    if (row === undefined) {
      row = element("tr");
      const head = element("th", name);
      head.scope = "row";
      row.append(head);
      for (let column = 0; column < COLUMNS.length + 1; column += 1) row.append(element("td"));
      this.rows.set(name, row);
      this.places.body.append(row);
    }
    return row;
  }

  fill(row, found, isWrong) {
    COLUMNS.forEach((column, at) => {
      const count = found[column];
      const differs = isWrong && (column === "accepted" || column === "announced") && count !== null && count !== found.wanted;
      say(row.children[at + 1], count === null ? "-" : count.toLocaleString("en"), differs ? "bad" : "");
    });
    const states = Object.entries(found.neighbours).map(([address, state]) => `${address} ${state}`);
    const nobody = found.announced === null ? "tells no router itself" : "by a routing daemon on its host";
    const text = !found.is_heard ? (found.wanted ? "does not say" : "owns nothing, so nobody can ask it") : !found.is_kept ? "kept by others" : states.join(", ") || nobody;
    say(row.children[COLUMNS.length + 1], text, states.some((state) => !state.endsWith("Established")) ? "bad" : "");
  }
}

function list(place, items) {
  const text = items.map((item) => `${item.look} ${item.text} ${item.when}`).join("\n");
  if (place.dataset.text === text) return;
  place.dataset.text = text;
  place.replaceChildren(
    ...items.map((item) => {
      const row = element("li", item.text, item.look);
      row.append(element("small", ` ${item.when}`));
      return row;
    }),
  );
}
