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

export const HEAT_STEPS = 16;

// The brighter the hotter; on white, the darker. Steps above 7 are not told.
export function heated(colour, step, isDark) {
  const [end, share] = [isDark ? 255 : 0, Math.min(7, step) * (isDark ? 0.1 : 0.09)];
  return colour.map((part) => Math.round(part * (1 - share) + end * share));
}

// Of a slice by when it was verified: green that fades with every doubling of the time; never: brown.
export function ageColour(step, isDark) {
  if (step === 0) return isDark ? [150, 92, 40] : [196, 132, 70];
  const share = (step - 1) / 14;
  const [fresh, old] = isDark ? [[70, 214, 132], [44, 66, 58]] : [[28, 132, 74], [190, 214, 200]];
  return fresh.map((part, at) => Math.round(part * (1 - share) + old[at] * share));
}
