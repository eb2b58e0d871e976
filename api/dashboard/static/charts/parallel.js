// Parallel coordinates on a canvas: log axes, a brush on each, the worst drawn first, failed ones at the bottom with a cross.

import { widthOf } from "./axis.js";
import { html, px, svg } from "./dom.js";
import { parameter, visible } from "./format.js";
import { chart } from "./frame.js";
import { band, domain, scale } from "./scale.js";
import { colour, cross, mixed, rampOf } from "./tones.js";

const TOP = 40;
const BOTTOM = 26;
const REACH = 16;
const BUCKETS = 12;
const MOVED = 4;

/**
 * Draw parallel coordinates into `host`.
 *
 * options:
 *   title, height, empty, mode: max|min
 *   axes: [{key, label, kind: linear|log|int|choice, names (of a choice), domain, isLog, isFlipped, format}]
 *   trials: [{number, arm, tone, values: {key: value}, score (null: failed)}]   of a choice the value is its index
 *   selection: Selection; limits: what the selection keeps beside the ranges, `(trial) => boolean`
 *   byScore: colour by score, not by arm
 *   ordered(keys): an axis was moved; toggled(key, "log" | "flip"): a title was pressed
 */
export function parallelChart(host, options) {
  return chart(host, PARALLEL, { height: 320, ...options, isEmpty: !options.trials.length || options.axes.length < 2 });
}

const PARALLEL = {
  draw(frame) {
    build(frame);
    frame.lay = layout(frame);
    frame.lines = bundles(frame);
    paintAll(frame);
    drawAxes(frame);
    drawTitles(frame);
    repaint(frame);
  },
  clear(frame) {
    if (frame.canvas) frame.canvas.hidden = frame.titles.hidden = true;
  },
  summary({ axes, trials, selection, limits }) {
    const kept = trials.filter((trial) => selection.keeps(trial) && (limits?.(trial) ?? true)).length;
    return `${trials.length} trials over ${axes.map(({ label }) => label).join(", ")}; ${kept} kept, ${trials.filter(({ score }) => score === null).length} without a value`;
  },
  table: ({ axes, trials, selection }) => ({
    columns: [{ label: "trial" }, { label: "arm", isText: true }, ...axes.map(({ label }) => ({ label }))],
    rows: trials
      .filter((trial) => selection.keeps(trial))
      .map(({ number, arm, values }) => [String(number), arm, ...axes.map((axis) => text(axis, values[axis.key]))]),
  }),
  hover(frame, x, y) {
    if (frame.drag) return;
    const found = nearestLine(frame, x, y);
    frame.hot?.replaceChildren();
    if (!found) return frame.tip.hide();
    frame.hot.append(svg("path", { d: found.path, class: `line hot tone-${found.trial.tone}` }));
    frame.tip.show(
      x,
      y,
      `trial ${found.trial.number}, ${found.trial.arm}${found.trial.score === null ? " (no value)" : ""}`,
      frame.options.axes.map((axis) => ({ name: axis.label, value: text(axis, found.trial.values[axis.key]) })),
    );
  },
  leave: (frame) => frame.hot?.replaceChildren(),
};

function build(frame) {
  if (frame.canvas) {
    frame.canvas.hidden = frame.titles.hidden = false;
    return;
  }
  frame.canvas = frame.body.insertBefore(html("canvas", { class: "chart-canvas", "aria-hidden": "true" }), frame.svg);
  frame.titles = html("div", { class: "axis-buttons" });
  frame.host.insertBefore(frame.titles, frame.body);
  frame.back = document.createElement("canvas");
  frame.body.classList.add("is-brushed");
  frame.body.addEventListener("pointerdown", (event) => startBrush(frame, event));
  frame.body.addEventListener("dblclick", () => frame.options.selection.clear());
}

function layout({ options, width, height }) {
  const [left, right] = [Math.min(36, width * 0.08), width - Math.min(46, width * 0.1)];
  const gap = (right - left) / (options.axes.length - 1);
  const ends = [height - BOTTOM, TOP - 24];
  const scales = options.axes.map((axis) => {
    const range = axis.isFlipped ? [ends[1], ends[0]] : ends;
    if (axis.kind === "choice") return band(axis.names, range);
    const kind = axis.isLog ? "log" : axis.kind === "int" ? "int" : "linear";
    return scale(
      kind,
      axis.domain ??
        domain(
          options.trials.map(({ values }) => values[axis.key]),
          kind,
        ),
      range,
    );
  });
  return { left, right, gap, scales, bottom: ends[0], top: ends[1], x: (i) => left + i * gap };
}

function place({ lay, options }, trial, i) {
  const value = trial.values[options.axes[i].key];
  if (!Number.isFinite(value)) return lay.bottom + 12;
  return Math.min(Math.max(lay.scales[i].at(value), lay.top), lay.bottom);
}

/** Lines from the worst to the best, those without a value first. */
function bundles(frame) {
  const { options, lay } = frame;
  const sign = options.mode === "min" ? -1 : 1;
  const worstFirst = [...options.trials].sort(
    (a, b) => (a.score === null ? -1 : 0) - (b.score === null ? -1 : 0) || sign * (a.score - b.score),
  );
  const num = worstFirst.length;
  return worstFirst.map((trial, rank) => {
    const path = new Path2D();
    const points = options.axes.map((_, i) => [lay.x(i), place(frame, trial, i)]);
    points.forEach(([x, y], i) => (i ? path.lineTo(x, y) : path.moveTo(x, y)));
    return { trial, path, points, bucket: Math.floor((rank / num) * BUCKETS), share: num > 1 ? rank / (num - 1) : 1 };
  });
}

function sized(canvas, { width, height }) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

/** All lines in grey, once: what is not kept shows through from here. */
function paintAll(frame) {
  const context = sized(frame.back, frame);
  frame.context = sized(frame.canvas, frame);
  const style = getComputedStyle(frame.host);
  frame.paints = {
    grey: style.getPropertyValue("--strong-line").trim(),
    ink: style.getPropertyValue("--text").trim(),
    ramp: rampOf(frame.host),
    of: (tone) => style.getPropertyValue(`--tone-${tone}`).trim(),
  };
  context.strokeStyle = frame.paints.grey;
  context.globalAlpha = frame.options.trials.length > 300 ? 0.08 : 0.16;
  const all = new Path2D();
  for (const { path } of frame.lines) all.addPath(path);
  context.stroke(all);
}

/** Draw what is kept: a few strokes, one for each bundle of a colour, so that a frame stays short. */
function repaint(frame) {
  const { context, options, paints, lines, width, height } = frame;
  const strokes = new Map();
  let num = 0;
  for (const { trial, path, bucket, share } of lines) {
    if (!options.selection.keeps(trial) || !(options.limits?.(trial) ?? true)) continue;
    num += 1;
    const tone = options.byScore ? `${bucket}` : `${bucket} ${trial.tone}`;
    if (!strokes.has(tone)) strokes.set(tone, { path: new Path2D(), tone: trial.tone, share });
    strokes.get(tone).path.addPath(path);
  }
  context.clearRect(0, 0, width, height);
  context.drawImage(frame.back, 0, 0, width, height);
  context.globalAlpha = num > 500 ? 0.22 : num > 200 ? 0.35 : num > 40 ? 0.6 : 0.85;
  context.lineWidth = num > 200 ? 1 : 1.4;
  for (const { path, tone, share } of strokes.values()) {
    context.strokeStyle = options.byScore ? colour(mixed(paints.ramp, share)) : paints.of(tone);
    context.stroke(path);
  }
  context.globalAlpha = 1;
  const marked = lines.find(({ trial }) => trial.number === options.selection.trial);
  if (marked) {
    [context.strokeStyle, context.lineWidth] = [paints.ink, 3];
    context.stroke(marked.path);
  }
  drawBrushes(frame);
  frame.numKept = num;
}

/** Show the selection again, without a new layout: cheap enough for each move of a pointer. */
export function reselect(frame) {
  if (frame.lines && !frame.options.isEmpty) repaint(frame);
}

function drawAxes(frame) {
  const { lay, options } = frame;
  const group = svg("g", { class: "chart-axes is-over" });
  options.axes.forEach((axis, i) => {
    const [x, at] = [px(lay.x(i)), lay.scales[i]];
    group.append(svg("path", { d: `M${x} ${lay.top}V${lay.bottom}`, class: "axis-line strong" }));
    const isLast = i === options.axes.length - 1;
    const side = { x: isLast ? x + 6 : x - 6, class: isLast ? "tick" : "tick at-end" };
    const room = i === 0 ? lay.left - 6 : lay.gap - 20;
    for (const [y, label] of ticksOf(axis, at)) {
      const isWide = i === 0 && widthOf(label) > room;
      group.append(
        svg("path", { d: `M${x - 3} ${px(y)}h6`, class: "axis-line" }),
        svg("text", { ...(isWide ? { x: x + 6, class: "tick" } : side), y: px(y) + 4 }, label),
      );
    }
  });
  const lost = frame.lines.filter(({ trial }) => trial.score === null);
  const last = options.axes.length - 1;
  group.append(svg("path", { d: lost.map(({ points }) => cross(...points[last])).join(""), class: "failed" }));
  frame.brushes = svg("g", {});
  frame.hot = svg("g", {});
  frame.svg.replaceChildren(group, frame.brushes, frame.hot);
}

function ticksOf(axis, at) {
  if (at.kind === "band") return at.names.map((name, i) => [at.at(i), shorter(visible(name))]);
  const format = axis.format ?? parameter;
  return at.ticks(5).map((value) => [at.at(value), format(value)]);
}

function shorter(name) {
  return name.length > 12 ? `${name.slice(0, 11)}…` : name;
}

/** Titles are buttons above the axes: a press turns log on and off, or flips; a drag or Alt with an arrow moves the axis. */
function drawTitles(frame) {
  const { axes } = frame.options;
  const focused = frame.titles.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  frame.titles.replaceChildren(...axes.map((axis, i) => title(frame, axis, i)));
  if (focused) frame.titles.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function title(frame, axis, i) {
  const { lay, options } = frame;
  const button = html(
    "button",
    {
      type: "button",
      class: "axis-button",
      "data-key": axis.key,
      title: `${axis.label}: press for log or linear, Shift for flipped; drag, or Alt and an arrow, to move`,
    },
    axis.label,
    axis.isLog ? html("small", {}, " log") : null,
    axis.isFlipped ? html("small", {}, " ↓") : null,
  );
  button.style.left = `${px(lay.x(i))}px`;
  button.style.maxWidth = `${px(Math.max(lay.gap - 6, 44))}px`;
  if (i === 0) button.classList.add("is-first");
  if (i === options.axes.length - 1) button.classList.add("is-last");
  button.addEventListener("click", (event) => {
    if (!frame.dragged)
      options.toggled?.(axis.key, event.shiftKey || axis.kind === "choice" || !canBeLog(axis, frame) ? "flip" : "log");
    frame.dragged = false;
  });
  button.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !event.altKey) return;
    event.preventDefault();
    moved(frame, i, i + step);
  });
  button.addEventListener("pointerdown", (event) => drag(frame, button, i, event));
  return button;
}

function canBeLog(axis, { options }) {
  return options.trials.every(({ values }) => !(values[axis.key] <= 0));
}

function moved(frame, from, to) {
  const keys = frame.options.axes.map(({ key }) => key);
  if (to < 0 || to >= keys.length || to === from) return;
  keys.splice(to, 0, ...keys.splice(from, 1));
  frame.options.ordered?.(keys);
}

function drag(frame, button, from, event) {
  const start = event.clientX;
  const move = (later) => {
    if (Math.abs(later.clientX - start) < MOVED) return;
    frame.dragged = true;
    button.style.left = `${px(frame.lay.x(from) + later.clientX - start)}px`;
  };
  const end = (later) => {
    removeEventListener("pointermove", move);
    removeEventListener("pointerup", end);
    if (!frame.dragged) return;
    moved(
      frame,
      from,
      Math.min(
        Math.max(Math.round((frame.lay.x(from) + later.clientX - start - frame.lay.left) / frame.lay.gap), 0),
        frame.options.axes.length - 1,
      ),
    );
    drawTitles(frame);
    setTimeout(() => (frame.dragged = false));
  };
  addEventListener("pointermove", move);
  addEventListener("pointerup", end);
}

/** Return the range between two heights on an axis: of a choice the values whose places they touch. */
export function rangeBetween(at, from, to) {
  const [low, high] = [Math.min(from, to), Math.max(from, to)];
  if (at.kind === "band") {
    const [first, last] = [at.index(from), at.index(to)].sort((a, b) => a - b);
    return { low: first, high: last };
  }
  const [a, b] = [at.value(low), at.value(high)];
  return { low: Math.min(a, b), high: Math.max(a, b) };
}

function startBrush(frame, event) {
  const { lay, options } = frame;
  if (options.isEmpty || event.button) return;
  const [x, y] = frame.place(event);
  const i = Math.round((x - lay.left) / lay.gap);
  if (i < 0 || i >= options.axes.length || Math.abs(x - lay.x(i)) > REACH) return;
  event.preventDefault();
  frame.body.setPointerCapture(event.pointerId);
  const { key } = options.axes[i];
  const known = options.selection.ranges.get(key);
  const held = known && edges(lay.scales[i], known);
  const grip = held && y > held[0] && y < held[1] ? y - held[0] : null;
  frame.drag = { i, key, y, grip, size: held ? held[1] - held[0] : 0, isMoved: false };
  frame.tip.hide();
  const move = (later) => brushTo(frame, frame.place(later)[1]);
  const end = () => {
    frame.body.removeEventListener("pointermove", move);
    const { isMoved } = frame.drag;
    frame.drag = null;
    if (isMoved) options.selection.say(true);
    else if (known) options.selection.set({ [key]: null });
    else if (lay.scales[i].kind === "band") options.selection.set({ [key]: rangeBetween(lay.scales[i], y, y) });
  };
  frame.body.addEventListener("pointermove", move);
  frame.body.addEventListener("pointerup", end, { once: true });
}

function brushTo(frame, to) {
  const { drag: held, lay } = frame;
  if (!held || (!held.isMoved && Math.abs(to - held.y) < MOVED)) return;
  held.isMoved = true;
  const within = (value) => Math.min(Math.max(value, lay.top), lay.bottom);
  const start =
    held.grip === null ? within(held.y) : Math.min(Math.max(to - held.grip, lay.top), lay.bottom - held.size);
  const end = held.grip === null ? within(to) : start + held.size;
  frame.options.selection.set({ [held.key]: rangeBetween(lay.scales[held.i], start, end) }, false);
}

function edges(at, range) {
  const half = at.kind === "band" ? Math.abs(at.step) / 2 : 0;
  const [a, b] = [at.at(range.low), at.at(range.high)];
  const [low, high] = [Math.min(...at.range), Math.max(...at.range)];
  return [Math.max(Math.min(a, b) - half, low), Math.min(Math.max(a, b) + half, high)];
}

function drawBrushes(frame) {
  const { lay, options } = frame;
  const shown = options.axes.map((axis, i) => {
    const range = options.selection.ranges.get(axis.key);
    if (!range) return null;
    const [top, bottom] = edges(lay.scales[i], range);
    return svg("rect", {
      x: px(lay.x(i) - 7),
      y: px(top),
      width: 14,
      height: px(Math.max(bottom - top, 2)),
      rx: 3,
      class: "brush",
    });
  });
  frame.brushes?.replaceChildren(...shown.filter(Boolean));
}

function nearestLine(frame, x, y) {
  const { lay, options } = frame;
  const i = Math.min(Math.max(Math.floor((x - lay.left) / lay.gap), 0), options.axes.length - 2);
  const share = Math.min(Math.max((x - lay.x(i)) / lay.gap, 0), 1);
  let [best, least] = [null, 8];
  for (const line of frame.lines) {
    if (!options.selection.keeps(line.trial) || !(options.limits?.(line.trial) ?? true)) continue;
    const distance = Math.abs(line.points[i][1] + share * (line.points[i + 1][1] - line.points[i][1]) - y);
    if (distance <= least) [best, least] = [line, distance];
  }
  return best && { trial: best.trial, path: `M${best.points.map(([px0, py0]) => `${px(px0)} ${px(py0)}`).join("L")}` };
}

function text(axis, value) {
  if (axis.kind === "choice") return axis.names[value] ?? "-";
  return (axis.format ?? parameter)(value);
}
