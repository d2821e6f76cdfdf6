// Buckets and objects: folders by page, files up and down.

import { post } from "./door.js";
import { S3 } from "./s3.js";
import { at, bytes, element, quoted, say } from "./text.js";

export class Objects {
  constructor(door, region) {
    this.door = door;
    this.region = region;
    this.s3 = null;
    [this.bucket, this.prefix] = ["", ""];
    this.turn = 0; // Of what was asked last: what comes later of something else is not shown.
    at("keys").addEventListener("submit", (event) => {
      event.preventDefault();
      const [key, secret] = [at("key").value.trim(), at("secret").value.trim()];
      at("secret").value = "";
      if (key && secret) this.enter(new S3(key, secret, this.region()));
      else this.borrow();
    });
    at("more").addEventListener("click", () => this.show(this.next));
    at("again").addEventListener("click", () => this.go(this.bucket, this.prefix));
    at("files").addEventListener("change", () => this.upload([...at("files").files]));
    at("stop").addEventListener("click", () => this.stopping.abort());
  }

  // The key of the login, without typing one.
  async borrow() {
    if (!this.door.mayAct) {
      this.door.ask();
      return;
    }
    const { body } = await post("/console/key");
    if (body.error) say(at("objects-said"), body.error, "bad");
    else this.enter(new S3(body.key, body.secret, this.region()));
  }

  enter(s3) {
    this.s3 = s3;
    this.go("", "");
  }

  forget() {
    this.s3 = null;
    at("browser").hidden = true;
    say(at("objects-said"), "", "");
  }

  async go(bucket, prefix) {
    [this.bucket, this.prefix] = [bucket, prefix];
    at("rows").replaceChildren();
    this.trail();
    say(at("ls-cli"), `ssastore ls ${quoted(prefix ? `${bucket}/${prefix}` : bucket)}`.trim());
    at("upload").hidden = !bucket;
    await this.show("");
  }

  async show(cursor) {
    this.turn += 1;
    const turn = this.turn;
    try {
      const found = this.bucket ? await this.s3.list(this.bucket, this.prefix, cursor) : { buckets: await this.s3.buckets() };
      if (turn !== this.turn) return;
      at("browser").hidden = false;
      const rows = found.buckets ? found.buckets.map((name) => this.folder(name, () => this.go(name, ""))) : this.page(found);
      at("rows").append(...rows);
      this.next = found.next || "";
      at("more").hidden = !this.next;
      const count = at("rows").children.length;
      say(at("objects-said"), count ? `${count} shown${this.next ? ", and there are more" : ""}` : "Nothing here", "");
    } catch (error) {
      if (turn === this.turn) say(at("objects-said"), error.message, "bad");
    }
  }

  page({ folders, objects }) {
    return [
      ...folders.map((prefix) => this.folder(prefix.slice(this.prefix.length), () => this.go(this.bucket, prefix))),
      ...objects.map((object) => this.file(object)),
    ];
  }

  row(name, act, ...cells) {
    const row = element("tr");
    const head = element("th");
    head.scope = "row";
    const button = element("button", name);
    button.type = "button";
    button.addEventListener("click", act);
    head.append(button);
    row.append(head, ...cells.map((text) => element("td", text)));
    return row;
  }

  folder(name, act) {
    return this.row(name, act, "", "");
  }

  file({ key, size, modified }) {
    const save = () => {
      try {
        const link = element("a");
        link.href = this.s3.link(this.bucket, key);
        link.download = key.slice(key.lastIndexOf("/") + 1);
        link.click();
        say(at("objects-said"), `${key} is saved by the browser. By command: ssastore get ${quoted(`${this.bucket}/${key}`)}`, "");
      } catch (error) {
        say(at("objects-said"), error.message, "bad");
      }
    };
    const row = this.row(key.slice(this.prefix.length), save, bytes(size), new Date(modified).toLocaleString());
    row.querySelector("button").setAttribute("aria-label", `Download ${key}`);
    return row;
  }

  trail() {
    const parts = this.prefix.split("/").filter(Boolean);
    const steps = [["Buckets", "", ""], ...(this.bucket ? [[this.bucket, this.bucket, ""]] : [])];
    parts.forEach((part, number) => steps.push([part, this.bucket, `${parts.slice(0, number + 1).join("/")}/`]));
    at("trail").replaceChildren(
      ...steps.map(([name, bucket, prefix], number) => {
        const item = element("li");
        const button = element("button", name);
        button.type = "button";
        if (number === steps.length - 1) button.setAttribute("aria-current", "page");
        button.addEventListener("click", () => this.go(bucket, prefix));
        item.append(button);
        return item;
      }),
    );
  }

  async upload(files) {
    this.stopping = new AbortController();
    const total = files.reduce((sum, file) => sum + file.size, 0);
    let done = 0;
    at("sending").hidden = false;
    const [bucket, prefix] = [this.bucket, this.prefix];
    try {
      for (const file of files) {
        const tell = (sent) => {
          at("progress").value = total ? (done + sent) / total : 1;
          say(at("sent"), `${file.name}: ${bytes(done + sent)} of ${bytes(total)}`);
        };
        tell(0);
        await this.s3.put(bucket, prefix + file.name, file, tell, this.stopping.signal);
        done += file.size;
      }
      await this.go(bucket, prefix);
      const name = files.length === 1 ? quoted(`${bucket}/${prefix}${files[0].name}`) : `${quoted(`${bucket}/${prefix}`)}NAME`;
      say(at("objects-said"), `${files.length} stored. By command: ssastore put ${name} FILE`, "good");
    } catch (error) {
      say(at("objects-said"), `not stored: ${error.message}`, "bad");
    }
    at("sending").hidden = true;
    at("files").value = "";
  }
}
