// Probe curves of alpha* searches as a heat map: steps across, alpha down, colour = loss above the curve's own minimum.

import { plot } from "./axis.js";
import { html, px, svg } from "./dom.js";
import { loss, parameter } from "./format.js";
import { chart } from "./frame.js";
import { quantile } from "./stats.js";
import { colour, mixed, rampOf } from "./tones.js";

const ROWS = 48;
const TAIL = 0.98;

/**
 * Draw the searches of a run into `host`.
 *
 * options: title, height, empty; searches: [{step, epoch, alpha, alphas, losses}] by step, one or the mean of some;
 * num: how many searches these are; edgeShare: the share whose alpha* is an end of what they looked at;
 * at: index of the search whose curve is shown beside; picked(index): called with the one clicked or walked to.
 */
export function heatChart(host, options) {
  return chart(host, HEAT, { height: 240, ...options, isEmpty: !options.searches.length });
}

/** Return a curve's values at the places of a grid, straight between its points; NaN outside of them. */
export function onGrid(alphas, values, grid) {
  let i = 0;
  return grid.map((alpha) => {
    while (i + 2 < alphas.length && alphas[i + 1] < alpha) i += 1;
    const [from, to] = [alphas[i], alphas[i + 1]];
    if (alpha < from - 1e-9 || to === undefined || alpha > to + 1e-9) return alpha === from ? values[i] : NaN;
    return values[i] + ((alpha - from) / (to - from)) * (values[i + 1] - values[i]);
  });
}

/** Return the matrix of the heat map: rows by search, each above its own minimum, on a grid all share; and a robust top. */
export function matrix(searches, num = ROWS) {
  const low = Math.min(...searches.map(({ alphas }) => alphas[0]));
  const high = Math.max(...searches.map(({ alphas }) => alphas.at(-1)));
  const grid = Array.from({ length: num }, (_, i) => low + ((high - low) * i) / (num - 1));
  const rows = searches.map(({ alphas, losses }) => {
    const least = Math.min(...losses);
    return onGrid(alphas, losses, grid).map((value) => value - least);
  });
  return { grid, rows, top: quantile(rows.flat(), TAIL) || 1 };
}

const HEAT = {
  draw(frame) {
    const { searches } = frame.options;
    const found = matrix(searches);
    const half = (found.grid.at(-1) - found.grid[0]) / (2 * (ROWS - 1)) || 0.5;
    const area = plot(
      frame,
      { label: "step", kind: "linear", domain: [-0.5, searches.length - 0.5], format: () => "" },
      { label: "α", domain: [found.grid[0] - half, found.grid.at(-1) + half], format: parameter },
    );
    frame.area = area;
    for (const line of area.group.querySelectorAll(".grid")) line.remove();
    area.group.append(...stepLabels(area, searches, frame));
    frame.canvas ??= frame.body.insertBefore(
      html("canvas", { class: "chart-canvas", "aria-hidden": "true" }),
      frame.svg,
    );
    frame.canvas.hidden = false;
    paint(frame, area, found);
    frame.cursor = svg("g", {});
    frame.svg.replaceChildren(area.group, marks(area, searches), frame.cursor);
    frame.under.replaceChildren(ramped(frame, found.top));
    const at = frame.options.at;
    if (at !== undefined && at !== null) cursor(frame, at);
  },
  clear: (frame) => frame.canvas && (frame.canvas.hidden = true),
  summary({ searches, num, edgeShare }) {
    const alphas = searches.map(({ alpha }) => alpha);
    const mean = alphas.reduce((a, b) => a + b, 0) / alphas.length;
    return `${num} searches; alpha* from ${parameter(Math.min(...alphas))} to ${parameter(Math.max(...alphas))}, mean ${parameter(mean)}; at an edge of the range in ${Math.round(100 * edgeShare)} %`;
  },
  hover(frame, x) {
    const i = indexAt(frame, x);
    const { step, alpha, angle_rad: angle } = frame.options.searches[i];
    const rows = [
      { name: "α*", value: parameter(alpha) },
      { name: "probe curve spans", value: loss(span(frame.options.searches[i])) },
    ];
    if (Number.isFinite(angle)) rows.push({ name: "angle v0, v1", value: `${parameter(angle)} rad` });
    frame.tip.show(frame.area.x.at(i), frame.area.top + 40, `step ${step.toLocaleString("en-US")}`, rows);
  },
  click(frame, x) {
    if (!frame.options.isEmpty) pick(frame, indexAt(frame, x));
  },
  walk(frame, key) {
    const num = frame.options.searches.length;
    const at = frame.options.at ?? -1;
    const to = { ArrowRight: at + 1, ArrowLeft: at < 0 ? num - 1 : at - 1, Home: 0, End: num - 1 }[key];
    return to === undefined ? undefined : pick(frame, Math.min(Math.max(to, 0), num - 1));
  },
  table: ({ searches }) => ({
    columns: ["epoch", "step", "α*", "loss spans", "alphas looked at"].map((label) => ({ label })),
    rows: searches.map((search) => [
      String(search.epoch),
      String(search.step),
      parameter(search.alpha),
      loss(span(search)),
      String(search.alphas.length),
    ]),
  }),
};

function paint(frame, area, { rows, top }) {
  const ratio = window.devicePixelRatio || 1;
  const { canvas, width, height } = frame;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const ramp = rampOf(frame.host);
  const small = document.createElement("canvas");
  [small.width, small.height] = [rows.length, ROWS];
  const image = new ImageData(rows.length, ROWS);
  rows.forEach((row, column) =>
    row.forEach((value, i) => {
      if (!Number.isFinite(value)) return;
      const [r, g, b] = mixed(ramp, value / top);
      image.data.set([r, g, b, 255], 4 * ((ROWS - 1 - i) * rows.length + column));
    }),
  );
  small.getContext("2d").putImageData(image, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = rows.length > area.right - area.left;
  context.drawImage(
    small,
    area.left * ratio,
    area.top * ratio,
    (area.right - area.left) * ratio,
    (area.bottom - area.top) * ratio,
  );
}

function stepLabels(area, searches, frame) {
  const wanted = Math.max(Math.floor((area.right - area.left) / 74), 1);
  const every = Math.max(Math.ceil(searches.length / wanted), 1);
  return searches
    .map((search, i) =>
      i % every
        ? null
        : svg(
            "text",
            { x: px(area.x.at(i)), y: area.bottom + 16, class: "tick in-middle" },
            search.step.toLocaleString("en-US"),
          ),
    )
    .filter((label) => label && Number(label.getAttribute("x")) < frame.width - 10);
}

function marks(area, searches) {
  const r = Math.min(Math.max((area.right - area.left) / searches.length / 3, 1.2), 3.5);
  const path = searches
    .map(
      ({ alpha }, i) =>
        `M${px(area.x.at(i) - r)} ${px(area.y.at(alpha))}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`,
    )
    .join("");
  return svg(
    "g",
    {},
    svg("path", { d: path, class: "alpha-mark-halo" }),
    svg("path", { d: path, class: "alpha-mark" }),
  );
}

function ramped(frame, top) {
  const ramp = rampOf(frame.host);
  const steps = Array.from({ length: 16 }, (_, i) =>
    svg("rect", { x: i * 6, y: 0, width: 6.5, height: 10, fill: colour(mixed(ramp, i / 15)) }),
  );
  return html(
    "div",
    { class: "chart-ramp" },
    "0",
    svg("svg", { width: 96, height: 10, "aria-hidden": "true" }, ...steps),
    `${parameter(top)} above the curve's least loss; ○ α*`,
  );
}

function span({ losses }) {
  return Math.max(...losses) - Math.min(...losses);
}

function indexAt(frame, x) {
  return Math.min(Math.max(Math.round(frame.area.x.value(x)), 0), frame.options.searches.length - 1);
}

function cursor(frame, at) {
  const { area } = frame;
  const width = Math.max((area.right - area.left) / frame.options.searches.length, 2);
  frame.cursor.replaceChildren(
    svg("rect", {
      x: px(area.x.at(at) - width / 2),
      y: area.top,
      width: px(width),
      height: area.bottom - area.top,
      class: "cursor",
    }),
  );
}

function pick(frame, at) {
  frame.options.at = at;
  cursor(frame, at);
  const { step, alpha } = frame.options.searches[at];
  frame.options.picked?.(at);
  return `step ${step}: alpha* ${parameter(alpha)}`;
}
