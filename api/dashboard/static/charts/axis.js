// Axes of a plot with two scales: margins from their labels, grid lines, ticks, titles.

import { px, svg } from "./dom.js";
import { scale } from "./scale.js";

const TICK_ROOM = 74;
const LINE = 15;
let ruler = null;

/** Return how wide a text is at the size of tick labels. */
export function widthOf(text, font = "11px system-ui, sans-serif") {
  ruler ??= document.createElement("canvas").getContext("2d");
  ruler.font = font;
  return ruler.measureText(text).width;
}

/**
 * Return the scales of a plot in a frame and the group with its axes.
 *
 * x, y: {label, kind, domain, format}; domains as `domain()` makes them.
 */
export function plot(frame, x, y) {
  const [top, bottom] = [y.label ? 22 : 8, x.label ? 2 * LINE + 6 : LINE + 6];
  const [high, low] = [top, frame.height - bottom];
  const vertical = scale(y.kind ?? "linear", y.domain, [low, high]);
  const rows = vertical.ticks(Math.max(Math.round((low - high) / 36), 2));
  const format = y.format ?? vertical.format;
  const left = Math.ceil(Math.max(...rows.map((value) => widthOf(format(value))), 12)) + 10;
  const right = frame.width - 12;
  const horizontal = scale(x.kind ?? "linear", x.domain, [left, right]);
  const columns = horizontal.ticks(Math.max(Math.round((right - left) / TICK_ROOM), 2));
  const group = svg("g", { class: "chart-axes" });
  for (const value of rows) row(group, px(vertical.at(value)), left, right, format(value));
  labels(group, columns, horizontal, x.format ?? horizontal.format, low, frame.width);
  if (y.label) group.append(svg("text", { x: 0, y: 12, class: "axis-title" }, y.label));
  if (x.label) group.append(svg("text", { x: right, y: frame.height - 3, class: "axis-title at-end" }, x.label));
  group.append(svg("path", { d: `M${left} ${low}H${right}`, class: "axis-line" }));
  return {
    x: horizontal,
    y: vertical,
    left,
    right,
    top: high,
    bottom: low,
    group,
    formatX: x.format ?? horizontal.format,
    formatY: format,
  };
}

function row(group, y, left, right, label) {
  group.append(
    svg("path", { d: `M${left} ${y}H${right}`, class: "grid" }),
    svg("text", { x: left - 6, y: y + 4, class: "tick at-end" }, label),
  );
}

function labels(group, ticks, horizontal, format, y, width) {
  let end = -Infinity;
  for (const value of ticks) {
    const at = px(horizontal.at(value));
    const [text, half] = [format(value), widthOf(format(value)) / 2];
    group.append(svg("path", { d: `M${at} ${y}v4`, class: "axis-line" }));
    const middle = Math.min(at, width - half - 1);
    if (middle - half < end + 8) continue;
    end = middle + half;
    group.append(svg("text", { x: middle, y: y + LINE + 1, class: "tick in-middle" }, text));
  }
}

/** Return `label` with what is special about its scale. */
export function labelled(label, kind) {
  return kind === "log" ? `${label} (log)` : label;
}
