// The /64 as a square: a prefix of even length is a square, one of odd length two squares side by side, and
// slices that follow each other lie beside each other. Pure. Top two bits of a locator: which quarter, in the order
// lower left turn; each quarter is the whole, turned so that the ends meet (Hilbert, 1891).

// x and y of cell number `d`, of 4 ** order cells. `d` below 2 ** 32.
export function point(order, d) {
  let x = 0;
  let y = 0;
  for (let level = 0; level < order; level += 1) {
    const side = 2 ** level;
    const rx = (d >>> 1) & 1;
    const ry = (d ^ rx) & 1;
    if (ry === 0) {
      if (rx === 1) {
        x = side - 1 - x;
        y = side - 1 - y;
      }
      [x, y] = [y, x];
    }
    x += side * rx;
    y += side * ry;
    d >>>= 2;
  }
  return [x, y];
}

// The inverse of `point`.
export function cell(order, x, y) {
  let d = 0;
  for (let level = order - 1; level >= 0; level -= 1) {
    const side = 2 ** level;
    const rx = x & side ? 1 : 0;
    const ry = y & side ? 1 : 0;
    d = d * 4 + ((3 * rx) ^ ry);
    x &= side - 1;
    y &= side - 1;
    if (ry === 0) {
      if (rx === 1) {
        x = side - 1 - x;
        y = side - 1 - y;
      }
      [x, y] = [y, x];
    }
  }
  return d;
}

// The rectangle of a prefix in units of the whole square: [x, y, width, height]. `locator`: 32 bits, `depth`: how
// many of them are fixed.
export function rectangle(locator, depth) {
  const order = depth >> 1;
  const side = 1 / 2 ** order;
  const [x, y] = point(order, depth ? Math.floor(locator / 2 ** (32 - 2 * order)) : 0);
  if (depth % 2 === 0) return [x * side, y * side, side, side];
  const half = Math.floor(locator / 2 ** (31 - 2 * order)) & 1;
  const first = Math.floor(locator / 2 ** (32 - 2 * order)) * 4 + 2 * half;
  const [[ax, ay], [bx, by]] = [point(order + 1, first), point(order + 1, first + 1)];
  const across = Math.abs(ax - bx) + 1;
  const down = Math.abs(ay - by) + 1;
  return [(Math.min(ax, bx) * side) / 2, (Math.min(ay, by) * side) / 2, (across * side) / 2, (down * side) / 2];
}
