// One colour for each owner, far from its neighbours' in the list; red is kept for what does not answer.

const TURN = 0.618034; // The golden section: the next colour is never near the last ones.

export function colourOf(place, isDark) {
  const hue = 35 + (((place * TURN + 0.48) % 1) * 295);
  const ring = Math.floor(place / 12) % 3;
  const light = (isDark ? [60, 46, 72] : [50, 38, 62])[ring];
  return rgb(hue, isDark ? 46 : 52, light);
}

function rgb(hue, saturation, light) {
  const l = light / 100;
  const a = (saturation / 100) * Math.min(l, 1 - l);
  const part = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (l - a * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [part(0), part(8), part(4)];
}

export function css([r, g, b]) {
  return `rgb(${r}, ${g}, ${b})`;
}
