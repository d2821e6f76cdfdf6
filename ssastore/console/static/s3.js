// Requests to the gateway's S3 interface, each signed here (Signature Version 4): a secret leaves the page in none.

import { bytesOf, hex, hmac, sha256, sha256Of } from "./sha256.js";

const BELOW = "/console/s3";
const PART = 8 * 1024 * 1024;
const EMPTY = hex(sha256(""));
const PATIENCE_S = 300; // Of a link for a download.

const quote = (text) => encodeURIComponent(text).replace(/[!'()*]/g, (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`);

export class S3Error extends Error {}

export class S3 {
  constructor(key, secret, region) {
    [this.key, this.secret, this.region] = [key, secret, region];
  }

  path(bucket, key = "") {
    // Browsers take such parts out of an address, however they are written.
    if (key.split("/").some((part) => part === "." || part === "..")) throw new S3Error("a name with . or .. between slashes cannot be asked for by a browser: ssastore get");
    return `/${[bucket, ...key.split("/")].map(quote).join("/")}`.replace(/\/$/, key ? "/" : "");
  }

  query(fields) {
    return Object.keys(fields).sort().map((name) => `${quote(name)}=${quote(fields[name])}`).join("&");
  }

  signature(method, path, query, headers, names, digest, stamp) {
    const lines = names.map((name) => `${name}:${headers[name]}\n`).join("");
    const request = [method, path, query, lines, names.join(";"), digest].join("\n");
    const scope = `${stamp.slice(0, 8)}/${this.region}/s3/aws4_request`;
    const text = ["AWS4-HMAC-SHA256", stamp, scope, hex(sha256(request))].join("\n");
    let key = bytesOf(`AWS4${this.secret}`);
    for (const part of [stamp.slice(0, 8), this.region, "s3", "aws4_request"]) key = hmac(key, part);
    return [hex(hmac(key, text)), scope];
  }

  signed(method, path, query, digest) {
    const stamp = new Date().toISOString().replace(/[-:]|\.\d+/g, "");
    const headers = { host: location.host, "x-amz-content-sha256": digest, "x-amz-date": stamp };
    const names = Object.keys(headers);
    const [signature, scope] = this.signature(method, path, query, headers, names, digest, stamp);
    delete headers.host; // The browser's own.
    headers.authorization = `AWS4-HMAC-SHA256 Credential=${this.key}/${scope}, SignedHeaders=${names.join(";")}, Signature=${signature}`;
    return headers;
  }

  async ask(method, path, fields = {}, body = undefined) {
    const query = this.query(fields);
    const digest = body === undefined ? EMPTY : hex(sha256(body));
    let answer;
    try {
      answer = await fetch(`${BELOW}${path || "/"}${query && "?"}${query}`, { method, body, headers: this.signed(method, path || "/", query, digest) });
    } catch (error) {
      throw new S3Error("the gateway does not answer");
    }
    const text = await answer.text();
    const found = text ? new DOMParser().parseFromString(text, "application/xml") : null;
    if (!answer.ok || (found && found.documentElement.tagName === "Error")) throw new S3Error(reason(found, answer.status));
    return { found, answer };
  }

  async buckets() {
    const { found } = await this.ask("GET", "/");
    return texts(found, "Bucket > Name");
  }

  // A page of what lies in a folder: { folders, objects: [{ key, size, modified }], next }.
  async list(bucket, prefix, cursor) {
    const fields = { "list-type": "2", delimiter: "/", "max-keys": "100", prefix, ...(cursor ? { "continuation-token": cursor } : {}) };
    const { found } = await this.ask("GET", this.path(bucket), fields);
    const objects = [...found.querySelectorAll("Contents")].map((row) => ({
      key: row.querySelector("Key").textContent,
      size: Number(row.querySelector("Size").textContent),
      modified: Date.parse(row.querySelector("LastModified").textContent),
    }));
    return { folders: texts(found, "CommonPrefixes > Prefix"), objects, next: texts(found, "NextContinuationToken")[0] || "" };
  }

  // An address that gives the object away for some minutes, to whoever has it: the browser itself saves it.
  link(bucket, key) {
    const path = this.path(bucket, key);
    const stamp = new Date().toISOString().replace(/[-:]|\.\d+/g, "");
    const fields = {
      "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
      "X-Amz-Credential": `${this.key}/${stamp.slice(0, 8)}/${this.region}/s3/aws4_request`,
      "X-Amz-Date": stamp,
      "X-Amz-Expires": String(PATIENCE_S),
      "X-Amz-SignedHeaders": "host",
    };
    const query = this.query(fields);
    const [signature] = this.signature("GET", path, query, { host: location.host }, ["host"], "UNSIGNED-PAYLOAD", stamp);
    return `${BELOW}${path}?${query}&X-Amz-Signature=${signature}`;
  }

  // Store a file; `told` hears how many bytes were sent. Large ones in parts, each for itself.
  async put(bucket, key, file, told, signal) {
    const path = this.path(bucket, key);
    if (file.size <= PART) {
      await this.send(path, {}, file, told, signal);
      return;
    }
    const { found } = await this.ask("POST", path, { uploads: "" });
    const uploadId = found.querySelector("UploadId").textContent;
    try {
      const tags = [];
      for (let at = 0; at < file.size; at += PART) {
        const fields = { partNumber: String(tags.length + 1), uploadId };
        tags.push(await this.send(path, fields, file.slice(at, at + PART), (sent) => told(at + sent), signal));
      }
      const parts = tags.map((tag, at) => `<Part><PartNumber>${at + 1}</PartNumber><ETag>${tag.replaceAll('"', "&quot;")}</ETag></Part>`);
      await this.ask("POST", path, { uploadId }, `<CompleteMultipartUpload>${parts.join("")}</CompleteMultipartUpload>`);
    } catch (error) {
      await this.ask("DELETE", path, { uploadId }).catch(() => {});
      throw error;
    }
  }

  // By XMLHttpRequest: `fetch` does not tell how much was sent. The answer's ETag.
  async send(path, fields, blob, told, signal) {
    const query = this.query(fields);
    const headers = this.signed("PUT", path, query, hex(await sha256Of(await blob.arrayBuffer())));
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("PUT", `${BELOW}${path}${query && "?"}${query}`);
      for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => told(event.loaded);
      request.onload = () => (request.status === 200 ? resolve(request.getResponseHeader("ETag")) : reject(new S3Error(reason(request.responseXML, request.status))));
      request.onerror = () => reject(new S3Error("the gateway does not answer"));
      request.onabort = () => reject(new S3Error("called off"));
      signal.addEventListener("abort", () => request.abort());
      request.send(blob);
    });
  }
}

function texts(found, selector) {
  return [...found.querySelectorAll(selector)].map((node) => node.textContent);
}

function reason(found, status) {
  const message = found && found.querySelector("Message");
  return message ? `${found.querySelector("Code").textContent}: ${message.textContent}` : `status ${status}`;
}
