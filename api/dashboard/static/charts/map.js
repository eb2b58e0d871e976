// A map of two fields: the value in each cell as colour and text, iso-cost lines over it, hatched where nothing was tried.

import { widthOf } from "./axis.js";
import { px, svg } from "./dom.js";
import { evaluations, parameter, visible } from "./format.js";
import { chart } from "./frame.js";
import { everyNth, linearTicks } from "./scale.js";
import { contour, robustRange } from "./stats.js";
import { colour, isLight, mixed, rampOf } from "./tones.js";

/**
 * Draw a map into `host`.
 *
 * options:
 *   title, height, empty, note, mode: max|min
 *   across, down: {label, names: [text]}
 *   cells: [{column, row, value, num, cost, isNoise}]   cost: gradient evaluations an epoch; isNoise: as good as the best, within noise
 *   format, label     of the value, and what it is called ("best")
 *   isKept(cell)      whether the shared selection keeps the cell; others are dimmed
 *   picked(cell)      called with a cell that was clicked or entered
 */
export function mapChart(host, options) {
  const rows = options.down.names.length;
  return chart(host, MAP, {
    height: Math.min(Math.max(rows * 34 + 62, 150), 420),
    label: "value",
    format: parameter,
    ...options,
    isEmpty: !options.cells.length,
  });
}

const MAP = {
  draw(frame) {
    const { options } = frame;
    const place = layout(frame);
    const ramp = rampOf(frame.host);
    const [low, high] = robustRange(
      options.cells.map((cell) => cell.value),
      0.1,
    );
    const found = new Map(options.cells.map((cell) => [`${cell.column} ${cell.row}`, cell]));
    const group = svg("g", {}, hatchPattern());
    for (let row = 0; row < options.down.names.length; row += 1)
      for (let column = 0; column < options.across.names.length; column += 1) {
        const cell = found.get(`${column} ${row}`);
        group.append(
          ...(cell
            ? valued(cell, place, options, ramp, shareOf(cell.value, low, high, options))
            : [blank(place, column, row)]),
        );
      }
    frame.grid = place;
    frame.cursor = svg("g", {});
    frame.svg.replaceChildren(names(place, options), group, isoCost(place, options), frame.cursor);
    frame.under.replaceChildren(ramped(ramp, low, high, options));
    if (frame.cell) pointAt(frame, frame.cell, false);
  },
  summary(options) {
    const best = options.cells.reduce((a, b) => (isBetter(b.value, a.value, options) ? b : a));
    const num = options.across.names.length * options.down.names.length;
    return `${options.label} of ${options.across.label} and ${options.down.label}; the best is ${options.format(best.value)} at ${where(best, options)}; ${options.cells.length} of ${num} cells tried`;
  },
  hover(frame, x, y) {
    const cell = cellAt(frame, x, y);
    if (cell) pointAt(frame, cell, true);
    else frame.tip.hide();
  },
  leave: (frame) => frame.cursor?.replaceChildren(),
  click(frame, x, y) {
    const cell = frame.options.isEmpty ? null : cellAt(frame, x, y);
    if (cell) frame.options.picked?.(withValue(frame, cell));
  },
  walk(frame, key) {
    const { across, down } = frame.options;
    const at = frame.cell ?? { column: -1, row: 0 };
    if (key === "Enter" && frame.cell)
      return frame.options.picked?.(withValue(frame, frame.cell)) ?? `${where(frame.cell, frame.options)} selected`;
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[key];
    if (!step) return undefined;
    const within = (value, num) => Math.min(Math.max(value, 0), num - 1);
    return pointAt(
      frame,
      { column: within(at.column + step[0], across.names.length), row: within(at.row + step[1], down.names.length) },
      true,
    );
  },
  table(options) {
    const columns = [
      { label: `${options.down.label} \\ ${options.across.label}`, isText: true },
      ...options.across.names.map((name) => ({ label: visible(name) })),
    ];
    const found = new Map(options.cells.map((cell) => [`${cell.column} ${cell.row}`, cell]));
    const text = (row) => (_, column) => options.format(found.get(`${column} ${row}`)?.value);
    return { columns, rows: options.down.names.map((name, row) => [name, ...options.across.names.map(text(row))]) };
  },
};

function layout(frame) {
  const { across, down } = frame.options;
  const left = Math.min(Math.ceil(Math.max(...down.names.map((name) => widthOf(name)))) + 12, frame.width * 0.3);
  const hasCost = frame.options.cells.some(({ cost }) => Number.isFinite(cost));
  const [top, bottom, right] = [22, frame.height - 36, frame.width - (hasCost ? 48 : 2)];
  const [width, height] = [(right - left) / across.names.length, (bottom - top) / down.names.length];
  return {
    left,
    right,
    top,
    bottom,
    width,
    height,
    x: (column) => left + column * width,
    y: (row) => top + row * height,
  };
}

function names(place, { across, down }) {
  const group = svg("g", { class: "chart-axes" });
  const nth = everyNth(
    across.names.length,
    Math.max(...across.names.map((name) => widthOf(name))) + 8,
    place.right - place.left,
  );
  across.names.forEach(
    (name, i) =>
      i % nth === 0 &&
      group.append(
        svg("text", { x: px(place.x(i + 0.5)), y: place.bottom + 15, class: "tick in-middle" }, visible(name)),
      ),
  );
  down.names.forEach((name, i) =>
    group.append(
      svg(
        "text",
        { x: place.left - 6, y: px(place.y(i + 0.5)) + 4, class: "tick at-end" },
        short(visible(name), place.left - 10),
      ),
    ),
  );
  group.append(
    svg("text", { x: 0, y: 12, class: "axis-title" }, down.label),
    svg("text", { x: place.right, y: place.bottom + 31, class: "axis-title at-end" }, across.label),
  );
  return group;
}

function short(text, room) {
  if (widthOf(text) <= room) return text;
  let end = text.length;
  while (end > 1 && widthOf(`${text.slice(0, end)}…`) > room) end -= 1;
  return `${text.slice(0, end)}…`;
}

function shareOf(value, low, high, { mode }) {
  const share = high > low ? (value - low) / (high - low) : 1;
  return mode === "min" ? 1 - share : share;
}

function valued(cell, place, options, ramp, share) {
  const parts = mixed(ramp, share);
  const isKept = options.isKept?.(cell) ?? true;
  const [x, y] = [place.x(cell.column), place.y(cell.row)];
  const text = options.format(cell.value).replace(/^0\./, ".").replace(/ %$/, "");
  const fits = widthOf(text) + 4 <= place.width;
  return [
    svg("rect", {
      x: px(x + 1),
      y: px(y + 1),
      width: px(place.width - 2),
      height: px(place.height - 2),
      rx: 2,
      fill: colour(parts),
      class: isKept ? "cell" : "cell is-dim",
    }),
    cell.isNoise
      ? svg("rect", {
          x: px(x + 3.5),
          y: px(y + 3.5),
          width: px(place.width - 7),
          height: px(place.height - 7),
          rx: 1,
          class: `noise ${isLight(parts) ? "on-light" : "on-dark"}`,
        })
      : null,
    fits
      ? svg(
          "text",
          {
            x: px(x + place.width / 2),
            y: px(y + place.height / 2 + 4),
            class: `cell-text in-middle ${!isKept ? "is-dim" : isLight(parts) ? "on-light" : "on-dark"}`,
          },
          text,
        )
      : null,
  ].filter(Boolean);
}

function hatchPattern() {
  return svg(
    "defs",
    {},
    svg(
      "pattern",
      { id: "map-hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("path", { d: "M0 0V6", class: "hatch" }),
    ),
  );
}

function blank(place, column, row) {
  return svg("rect", {
    x: px(place.x(column) + 1),
    y: px(place.y(row) + 1),
    width: px(place.width - 2),
    height: px(place.height - 2),
    rx: 2,
    fill: "url(#map-hatch)",
    class: "cell is-blank",
  });
}

/** Return cost as a whole grid: where no trial tells it, the mean of its row, which holds the field that costs most often. */
export function costGrid(cells, columns, rows) {
  const grid = Array.from({ length: rows }, () => new Array(columns).fill(NaN));
  for (const { column, row, cost } of cells) if (Number.isFinite(cost)) grid[row][column] = cost;
  for (const line of grid) {
    const known = line.filter(Number.isFinite);
    if (known.length)
      line.forEach((cost, i) => Number.isFinite(cost) || (line[i] = known.reduce((a, b) => a + b) / known.length));
  }
  return grid;
}

/** Return up to three costs at which a line says something: between those of cells, so that no line runs through a value. */
export function isoLevels(known) {
  const costs = [...new Set(known)].sort((a, b) => a - b);
  const span = costs.at(-1) - costs[0];
  if (!(span > costs[0] * 0.02)) return [];
  const isClear = (level) => costs.every((cost) => Math.abs(cost - level) > span * 0.05);
  const round = linearTicks(costs[0], costs.at(-1), 3).filter(
    (level) => level > costs[0] && level < costs.at(-1) && isClear(level),
  );
  if (round.length) return round;
  const gaps = costs.slice(1).map((cost, i) => [cost - costs[i], (cost + costs[i]) / 2]);
  return gaps
    .sort((a, b) => b[0] - a[0])
    .slice(0, 3)
    .map(([, middle]) => middle);
}

function isoCost(place, { cells, across, down }) {
  const group = svg("g", { class: "iso-costs" });
  const grid = costGrid(cells, across.names.length, down.names.length);
  for (const level of isoLevels(grid.flat().filter(Number.isFinite))) {
    const lines = contour(grid, level).map((ends) =>
      ends.map(([c, r]) => [px(place.x(c + 0.5)), px(place.y(r + 0.5))]),
    );
    if (!lines.length) continue;
    const path = lines.map(([a, b]) => `M${a}L${b}`).join("");
    const end = lines.flat().reduce((a, b) => (b[0] > a[0] ? b : a));
    group.append(
      svg("path", { d: path, class: "iso-cost-halo" }),
      svg("path", { d: path, class: "iso-cost" }),
      svg("path", { d: `M${end}L${place.right} ${end[1]}`, class: "iso-cost" }),
      svg("text", { x: place.right + 4, y: end[1] + 4, class: "iso-label" }, evaluations(level)),
    );
  }
  return group;
}

function ramped(ramp, low, high, options) {
  const width = 96;
  const steps = Array.from({ length: 16 }, (_, i) =>
    svg("rect", { x: (i * width) / 16, y: 0, width: width / 16 + 0.5, height: 10, fill: colour(mixed(ramp, i / 15)) }),
  );
  const ends = options.mode === "min" ? [high, low] : [low, high];
  const row = document.createElement("div");
  row.className = "chart-ramp";
  row.append(
    options.format(ends[0]),
    svg("svg", { width, height: 10, "aria-hidden": "true" }, ...steps),
    `${options.format(ends[1])} ${options.label}`,
  );
  return row;
}

function isBetter(value, than, { mode }) {
  return mode === "min" ? value < than : value > than;
}

function where({ column, row }, { across, down }) {
  return `${across.label} ${across.names[column]}, ${down.label} ${down.names[row]}`;
}

function cellAt({ grid: place, options }, x, y) {
  if (!place || x < place.left || x >= place.right || y < place.top || y >= place.bottom) return null;
  return {
    column: Math.min(Math.floor((x - place.left) / place.width), options.across.names.length - 1),
    row: Math.min(Math.floor((y - place.top) / place.height), options.down.names.length - 1),
  };
}

function withValue({ options }, { column, row }) {
  return (
    options.cells.find((cell) => cell.column === column && cell.row === row) ?? { column, row, value: null, num: 0 }
  );
}

function pointAt(frame, at, isShown) {
  const { options, grid: place } = frame;
  const cell = withValue(frame, at);
  frame.cell = { column: at.column, row: at.row };
  frame.cursor.replaceChildren(
    svg("rect", {
      x: px(place.x(at.column) + 0.5),
      y: px(place.y(at.row) + 0.5),
      width: px(place.width - 1),
      height: px(place.height - 1),
      rx: 3,
      class: "cursor",
    }),
  );
  const rows = cell.num
    ? [
        { name: options.label, value: options.format(cell.value) },
        { name: "trials", value: String(cell.num) },
      ]
    : [{ name: "not tried", value: "" }];
  if (Number.isFinite(cell.cost)) rows.push({ name: "cost", value: `${evaluations(cell.cost)} an epoch` });
  if (cell.isNoise) rows.push({ name: "within noise of the best", value: "" });
  if (isShown) frame.tip.show(place.x(at.column + 0.5), place.y(at.row + 0.5), where(at, options), rows);
  return `${where(at, options)}: ${rows.map(({ name, value }) => `${name} ${value}`.trim()).join(", ")}`;
}
