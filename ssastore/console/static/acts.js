// What may be done: each act with its command beside it, confirmed before, its result told after.

import { post } from "./door.js";
import { at, quoted, say } from "./text.js";

const PLAN = (node) => `ssastore plan --drain ${quoted(node)} --out plan.json`;

// By name: what it is called, what it means, what it needs, and the command.
const ACTS = {
  pause: {
    title: "Pause all moves",
    words: "Nothing more is begun. Slices that are being copied are copied anew later; orders stay.",
    cli: () => "ssastore pause",
  },
  resume: { title: "Resume moves", words: "What is ordered goes on.", cli: () => "ssastore resume" },
  rate: {
    title: "How fast slices move",
    words: "Bytes a second of each worker that slices go to, like 32M; or gentle, so that clients hardly notice.",
    field: "Rate",
    value: "gentle",
    cli: (asked) => `ssastore moves --rate ${quoted(asked.rate || "32M")}`,
  },
  abort: {
    title: "Abort all moves",
    words: "Every move that is not done is called off: those slices stay where they are.",
    cli: () => "ssastore abort",
  },
  scrub: {
    title: "Start a scrub",
    words: "Every worker reads and compares all of its copies, and repairs what is not good.",
    cli: () => "ssastore scrub",
  },
  apply: {
    title: "Drain",
    cli: (asked) => `${PLAN(asked.node)} && ssastore apply plan.json --no-wait`,
  },
};

export class Acts {
  constructor(door) {
    this.door = door;
    this.dialog = at("confirm");
    this.asked = {};
    for (const button of document.querySelectorAll("[data-act]")) {
      button.addEventListener("click", () => this.ask({ act: button.dataset.act }));
    }
    at("confirm-value").addEventListener("input", () => this.showCommand());
    at("confirm-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.carryOut();
    });
  }

  // Of a node: what it would do is asked first, and nothing is changed by that.
  async drain(node) {
    if (!this.comesIn()) return;
    const { body } = await post("/console/act", { act: "drain", node });
    if (body.error || !body.made_for) {
      this.tell(body.error || body.said, Boolean(body.error));
      return;
    }
    this.ask({ act: "apply", node, made_for: body.made_for }, body.said);
  }

  comesIn() {
    if (!this.door.mayAct) this.door.ask();
    return this.door.mayAct;
  }

  ask(asked, words) {
    if (!this.comesIn()) return;
    const act = ACTS[asked.act];
    this.asked = asked;
    say(at("confirm-title"), asked.node ? `${act.title} ${asked.node}` : act.title);
    say(at("confirm-words"), words || act.words);
    say(at("confirm-do"), act.field ? "Set it" : act.title);
    say(at("confirm-error"), "");
    at("confirm-label").hidden = !act.field;
    say(at("confirm-label").firstElementChild, act.field || "");
    at("confirm-value").value = act.value || "";
    this.showCommand();
    this.dialog.showModal();
  }

  told() {
    return ACTS[this.asked.act].field ? { ...this.asked, rate: at("confirm-value").value.trim() } : this.asked;
  }

  showCommand() {
    say(at("confirm-cli"), ACTS[this.asked.act].cli(this.told()));
  }

  async carryOut() {
    at("confirm-do").disabled = true;
    const { status, body } = await post("/console/act", this.told());
    at("confirm-do").disabled = false;
    if (status === 401) {
      this.dialog.close();
      this.door.show(false);
      this.door.ask();
    } else if (body.error) {
      say(at("confirm-error"), body.error);
    } else {
      this.dialog.close();
      this.tell(body.said, false);
    }
  }

  tell(text, isBad) {
    say(at("said"), text, isBad ? "bad" : "good");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => say(at("said"), "", ""), 20000);
  }
}
