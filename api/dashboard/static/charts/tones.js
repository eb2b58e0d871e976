// Colours, dash patterns and marks: Okabe-Ito for arms and series, a ramp for values; never colour alone.

import { px } from "./dom.js";

/** Colours by name; what they are in light and dark stands in charts.css. */
export const TONES = ["blue", "orange", "green", "purple", "vermilion", "sky", "grey", "olive"];
const DASHES = {
  blue: null,
  orange: "7 3",
  green: "2 3",
  purple: "8 3 2 3",
  vermilion: "4 2",
  sky: "10 3",
  grey: "3 4",
  olive: "6 2 1 2",
};
const MARKS = {
  blue: "circle",
  orange: "square",
  green: "triangle",
  purple: "diamond",
  vermilion: "plus",
  sky: "down",
  grey: "ring",
  olive: "bar",
};
const ARMS = {
  xsam: "blue",
  sam: "orange",
  sgd: "grey",
  asam: "green",
  wsam: "purple",
  gsam: "vermilion",
  sgd_plus: "sky",
};

/** Return the tone of an arm: the same one everywhere. */
export function armTone(arm) {
  return ARMS[arm] ?? toneAt([...arm].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 9973, 7));
}

/** Return the tone of the n-th series. */
export function toneAt(index) {
  return TONES[index % TONES.length];
}

/** Return the dash pattern of a tone, null for a whole line. */
export function dashOf(tone) {
  return DASHES[tone] ?? null;
}

/** Return the path of a tone's mark around a point. */
export function mark(tone, x, y, r = 3) {
  const at = `M${px(x)} ${px(y)}`;
  switch (MARKS[tone]) {
    case "square":
      return `${at}m${-r} ${-r}h${2 * r}v${2 * r}h${-2 * r}z`;
    case "triangle":
      return `${at}m0 ${-r * 1.2}l${r * 1.15} ${r * 2}h${-r * 2.3}z`;
    case "down":
      return `${at}m0 ${r * 1.2}l${r * 1.15} ${-r * 2}h${-r * 2.3}z`;
    case "diamond":
      return `${at}m0 ${-r * 1.3}l${r * 1.3} ${r * 1.3}l${-r * 1.3} ${r * 1.3}l${-r * 1.3} ${-r * 1.3}z`;
    case "plus":
      return `${at}m${-r * 0.4} ${-r}h${r * 0.8}v${r * 0.6}h${r * 0.6}v${r * 0.8}h${-r * 0.6}v${r * 0.6}h${-r * 0.8}v${-r * 0.6}h${-r * 0.6}v${-r * 0.8}h${r * 0.6}z`;
    case "bar":
      return `${at}m${-r} ${-r * 0.5}h${2 * r}v${r}h${-2 * r}z`;
    case "ring":
      return `${at}m${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0m${r * 0.5} 0a${r * 0.5} ${r * 0.5} 0 1 1 ${r} 0a${r * 0.5} ${r * 0.5} 0 1 1 ${-r} 0`;
    default:
      return `${at}m${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
  }
}

/** Return the path of the cross that says failed. */
export function cross(x, y, r = 3) {
  return `M${px(x - r)} ${px(y - r)}l${2 * r} ${2 * r}M${px(x + r)} ${px(y - r)}l${-2 * r} ${2 * r}`;
}

const RAMP_SIZE = 9;

/** Return the colours of the ramp as [r, g, b], as charts.css has them. */
export function rampOf(element) {
  const style = getComputedStyle(element);
  return Array.from({ length: RAMP_SIZE }, (_, i) => rgb(style.getPropertyValue(`--ramp-${i}`).trim()));
}

function rgb(text) {
  const value = Number.parseInt(text.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** Return the ramp's colour [r, g, b] for a share in [0, 1]. */
export function mixed(ramp, share) {
  const place = Math.min(Math.max(share, 0), 1) * (ramp.length - 1);
  const low = Math.min(Math.floor(place), ramp.length - 2);
  return ramp[low].map((part, i) => Math.round(part + (place - low) * (ramp[low + 1][i] - part)));
}

/** Return a colour as text for an attribute. */
export function colour([r, g, b]) {
  return `rgb(${r},${g},${b})`;
}

/** Return whether black text reads better than white on a colour (relative luminance of WCAG). */
export function isLight(parts) {
  const [r, g, b] = parts.map((part) =>
    part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4,
  );
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179;
}
