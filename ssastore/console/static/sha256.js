// SHA-256 and HMAC (FIPS 180-4, RFC 2104), because browsers offer theirs to pages of TLS and localhost alone.

const K = new Uint32Array(64);
const START = new Uint32Array(8);

// The first 64 primes' cube roots and the first eight's square roots: 32 bits behind the point.
(() => {
  const primes = [];
  for (let at = 2; primes.length < 64; at += 1) if (primes.every((prime) => at % prime)) primes.push(at);
  const bits = (value) => Math.floor((value - Math.floor(value)) * 2 ** 32);
  primes.forEach((prime, at) => {
    K[at] = bits(Math.cbrt(prime));
    if (at < 8) START[at] = bits(Math.sqrt(prime));
  });
})();

function compress(state, words) {
  for (let at = 16; at < 64; at += 1) {
    const [a, b] = [words[at - 15], words[at - 2]];
    const low = ((a >>> 7) | (a << 25)) ^ ((a >>> 18) | (a << 14)) ^ (a >>> 3);
    const high = ((b >>> 17) | (b << 15)) ^ ((b >>> 19) | (b << 13)) ^ (b >>> 10);
    words[at] = (words[at - 16] + low + words[at - 7] + high) | 0;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let at = 0; at < 64; at += 1) {
    const big = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const first = (h + big + ((e & f) ^ (~e & g)) + K[at] + words[at]) | 0;
    const other = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const second = (other + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, at) => {
    state[at] += word;
  });
}

function digest(data) {
  const state = Uint32Array.from(START);
  const words = new Int32Array(64);
  const whole = data.length - (data.length % 64);
  const rest = new Uint8Array(data.length % 64 < 56 ? 64 : 128);
  rest.set(data.subarray(whole));
  rest[data.length % 64] = 128;
  const tail = new DataView(rest.buffer);
  tail.setUint32(rest.length - 8, Math.floor(data.length / 2 ** 29));
  tail.setUint32(rest.length - 4, data.length << 3);
  for (const [bytes, size] of [[data, whole], [rest, rest.length]]) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at < size; at += 64) {
      for (let word = 0; word < 16; word += 1) words[word] = view.getInt32(at + 4 * word);
      compress(state, words);
    }
  }
  const found = new Uint8Array(32);
  const view = new DataView(found.buffer);
  state.forEach((word, at) => view.setUint32(4 * at, word));
  return found;
}

const encoder = new TextEncoder();
export const bytesOf = (text) => (typeof text === "string" ? encoder.encode(text) : text);
export const hex = (data) => Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");

export function sha256(data) {
  return digest(bytesOf(data));
}

export function hmac(key, data) {
  const block = new Uint8Array(64);
  block.set(key.length > 64 ? digest(key) : key);
  const message = bytesOf(data);
  const inner = new Uint8Array(64 + message.length);
  inner.set(block.map((byte) => byte ^ 0x36));
  inner.set(message, 64);
  const outer = new Uint8Array(96);
  outer.set(block.map((byte) => byte ^ 0x5c));
  outer.set(digest(inner), 64);
  return digest(outer);
}

// Of much data: by the browser where it does that, which is ten times as fast.
export async function sha256Of(buffer) {
  if (globalThis.crypto && crypto.subtle) return new Uint8Array(await crypto.subtle.digest("SHA-256", buffer));
  return digest(new Uint8Array(buffer));
}
