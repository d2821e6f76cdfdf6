// Who sits before the page: looks only, or may act. The cookie is not seen here; a link that logs in is used at once.

import { at, say } from "./text.js";

const HEADERS = { "Content-Type": "application/json", "X-Ssastore-Console": "1" };

// A question that changes something: { status, body }; a body with an `error` says why not.
export async function post(path, body = {}) {
  try {
    const answer = await fetch(path, { method: "POST", headers: HEADERS, body: JSON.stringify(body), signal: AbortSignal.timeout(30000) });
    return { status: answer.status, body: await answer.json() };
  } catch (error) {
    return { status: 0, body: { error: "the gateway does not answer" } };
  }
}

export class Door {
  constructor(changed) {
    this.mayAct = false;
    this.changed = changed; // Called when somebody has come in or gone.
    this.dialog = at("login");
    at("enter").addEventListener("click", () => this.ask());
    at("leave").addEventListener("click", async () => {
      await post("/console/logout");
      this.show(false);
      this.changed();
    });
    at("login-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const token = at("token").value;
      at("token").value = "";
      this.enter({ token });
    });
    for (const button of document.querySelectorAll("[data-close]")) {
      button.addEventListener("click", () => button.closest("dialog").close());
    }
  }

  // Use the login code that the address may carry; it is taken out of the address, and of the history.
  async begin() {
    const code = /^#login=(.+)$/.exec(location.hash);
    if (!code) return;
    history.replaceState(null, "", location.pathname + location.search);
    await this.enter({ code: code[1] });
  }

  async enter(said) {
    const { body } = await post("/console/login", said);
    say(at("login-error"), body.error || "");
    if (body.error) {
      this.ask();
      return;
    }
    this.dialog.close();
    this.show(true);
    this.changed();
  }

  ask() {
    if (!this.dialog.open) this.dialog.showModal();
  }

  show(mayAct) {
    this.mayAct = mayAct;
    say(at("may"), mayAct ? "May act" : "Looks only");
    at("enter").hidden = mayAct;
    at("leave").hidden = !mayAct;
  }
}
