// Text and elements: small things that every panel needs.

export const at = (id) => document.getElementById(id);

export function element(name, text = "", className = "") {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Set a text only where it differs: what is told aloud is not told again, and nothing is laid out anew.
export function say(target, text, className) {
  if (target.textContent !== text) target.textContent = text;
  if (className !== undefined && target.className !== className) target.className = className;
}

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  while (count >= 1024 && at < units.length - 1) {
    count /= 1024;
    at += 1;
  }
  return `${at && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[at]}`;
}

export function millis(us) {
  if (us === 0) return "-";
  if (us < 1000) return `${us} us`;
  return us < 100000 ? `${(us / 1000).toFixed(1)} ms` : `${(us / 1000000).toFixed(2)} s`;
}

export function clock(ms) {
  return new Date(ms).toTimeString().slice(0, 8);
}

export function plural(count, noun, many = `${noun}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? noun : many}`;
}

// A word of a command, as a shell takes it.
export function quoted(word) {
  return /^[\w./:@%+=-]*$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

// How long something takes or was, roughly.
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}
