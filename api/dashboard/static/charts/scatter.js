// One field against the value: a dot for each trial, those without a value on the lower edge with a cross.

import { labelled, plot } from "./axis.js";
import { px, svg } from "./dom.js";
import { parameter } from "./format.js";
import { chart } from "./frame.js";
import { nearestDot } from "./rungs.js";
import { domain } from "./scale.js";
import { cross, mark } from "./tones.js";

const MOVED = 5;

/**
 * Draw a scatter plot into `host`.
 *
 * options: title, height, empty; x: {key, label, kind: linear|log|int|choice, names, domain, format}; y: {label, kind, format};
 * trials: [{number, arm, tone, values, score (null: failed)}]; selection; limits(trial): what is kept beside it; picked(number)
 */
export function scatterChart(host, options) {
  return chart(host, SCATTER, { height: 210, ...options, isEmpty: !options.trials.length });
}

const SCATTER = {
  draw(frame) {
    const { trials, x, y } = frame.options;
    const isChoice = x.kind === "choice";
    const across = isChoice
      ? [-0.5, x.names.length - 0.5]
      : (x.domain ??
        domain(
          trials.map(({ values }) => values[x.key]),
          x.kind,
          0.03,
        ));
    const format = isChoice ? (value) => (Number.isInteger(value) ? (x.names[value] ?? "") : "") : x.format;
    const area = plot(
      frame,
      { label: labelled(x.label, x.kind), kind: isChoice ? "int" : x.kind, domain: across, format },
      {
        ...y,
        label: labelled(y.label, y.kind),
        domain: domain(
          trials.map(({ score }) => score ?? NaN),
          y.kind,
          0.06,
        ),
      },
    );
    frame.area = area;
    frame.dots = trials.map((trial) => dot(trial, area, x)).filter(({ x: at }) => Number.isFinite(at));
    frame.group = svg("g", {});
    frame.brushes = svg("g", {});
    frame.cursor = svg("g", {});
    frame.svg.replaceChildren(frame.brushes, area.group, frame.group, frame.cursor);
    paint(frame);
    if (!frame.isBrushed) brushable(frame);
  },
  summary({ trials, x, y }) {
    const found = trials.filter(({ score }) => score !== null);
    if (!found.length) return `${trials.length} trials, none with a value`;
    const scores = found.map(({ score }) => score);
    const format = y.format ?? parameter;
    return `${y.label} over ${x.label}: ${found.length} trials from ${format(Math.min(...scores))} to ${format(Math.max(...scores))}, ${trials.length - found.length} without a value`;
  },
  hover(frame, x, y) {
    if (frame.drag) return;
    const found = nearestDot(frame.dots, x, y);
    frame.cursor.replaceChildren();
    if (!found) return frame.tip.hide();
    const { trial } = found;
    frame.cursor.append(svg("circle", { cx: px(found.x), cy: px(found.y), r: 7, class: "ring" }));
    const axis = frame.options.x;
    const value =
      axis.kind === "choice" ? (axis.names[trial.values[axis.key]] ?? "-") : parameter(trial.values[axis.key]);
    frame.tip.show(found.x, found.y, `trial ${trial.number}, ${trial.arm}`, [
      { name: axis.label, value },
      {
        name: frame.options.y.label,
        value: trial.score === null ? "no value" : (frame.options.y.format ?? parameter)(trial.score),
      },
    ]);
  },
  leave: (frame) => frame.cursor?.replaceChildren(),
  table: ({ trials, x, y }) => ({
    columns: [{ label: "trial" }, { label: "arm", isText: true }, { label: x.label }, { label: y.label }],
    rows: trials.map(({ number, arm, values, score }) => [
      String(number),
      arm,
      x.kind === "choice" ? (x.names[values[x.key]] ?? "-") : parameter(values[x.key]),
      score === null ? "-" : (y.format ?? parameter)(score),
    ]),
  }),
};

function dot(trial, area, { key, kind, names }) {
  const value = trial.values[key];
  const spread =
    kind === "choice"
      ? ((((trial.number * 0.618033988749895) % 1) - 0.5) * 0.4 * (area.right - area.left)) / names.length
      : 0;
  return {
    trial,
    x: area.x.at(value) + spread,
    y: trial.score === null ? area.bottom - 4 : Math.min(Math.max(area.y.at(trial.score), area.top), area.bottom),
  };
}

function paint(frame) {
  const { selection, limits } = frame.options;
  const paths = new Map();
  const add = (kind, path) => paths.set(kind, (paths.get(kind) ?? "") + path);
  for (const { trial, x, y } of frame.dots) {
    const isKept = selection.keeps(trial) && (limits?.(trial) ?? true);
    if (trial.score === null) add(isKept ? "failed" : "failed is-dim", cross(x, y));
    else add(`${isKept ? "fill dots" : "fill dots is-dim"} tone-${trial.tone}`, mark(trial.tone, x, y, 2.8));
  }
  const order = [...paths].sort(([a], [b]) => Number(b.includes("is-dim")) - Number(a.includes("is-dim")));
  const picked = frame.dots.find(({ trial }) => trial.number === selection.trial);
  frame.group.replaceChildren(
    ...order.map(([kind, d]) => svg("path", { d, class: kind })),
    ...(picked ? [svg("circle", { cx: px(picked.x), cy: px(picked.y), r: 7, class: "ring" })] : []),
  );
  drawBrush(frame);
}

function drawBrush({ options, area, brushes }) {
  const range = options.selection.ranges.get(options.x.key);
  brushes.replaceChildren();
  if (!range) return;
  const slack = options.x.kind === "choice" ? 0.5 : 0;
  const within = (at) => Math.min(Math.max(at, area.left), area.right);
  const [from, to] = [within(area.x.at(range.low - slack)), within(area.x.at(range.high + slack))];
  brushes.append(
    svg("rect", {
      x: px(from),
      y: area.top,
      width: px(Math.max(to - from, 2)),
      height: area.bottom - area.top,
      class: "brush",
    }),
  );
}

/** Show the selection again, without new axes. */
export function reselect(frame) {
  if (frame.dots && !frame.options.isEmpty) paint(frame);
}

function brushable(frame) {
  frame.isBrushed = true;
  frame.body.classList.add("is-brushed");
  frame.body.addEventListener("pointerdown", (event) => {
    if (frame.options.isEmpty || event.button) return;
    const [start, y] = frame.place(event);
    const { options } = frame;
    if (start < frame.area.left || start > frame.area.right) return;
    event.preventDefault();
    frame.body.setPointerCapture(event.pointerId);
    const move = (later) => {
      const to = Math.min(Math.max(frame.place(later)[0], frame.area.left), frame.area.right);
      if (!frame.drag && Math.abs(to - start) < MOVED) return;
      frame.drag = true;
      options.selection.set(
        { [options.x.key]: between(frame.area.x.value(start), frame.area.x.value(to), options.x.kind) },
        false,
      );
    };
    const end = () => {
      frame.body.removeEventListener("pointermove", move);
      if (frame.drag) options.selection.say(true);
      else clicked(frame, start, y);
      frame.drag = false;
    };
    frame.body.addEventListener("pointermove", move);
    frame.body.addEventListener("pointerup", end, { once: true });
  });
}

function clicked({ dots, options }, x, y) {
  const found = nearestDot(dots, x, y);
  if (found) options.picked?.(found.trial.number);
  else if (options.selection.ranges.has(options.x.key)) options.selection.set({ [options.x.key]: null });
}

function between(from, to, kind) {
  const [low, high] = [Math.min(from, to), Math.max(from, to)];
  return kind === "choice" ? { low: Math.round(low), high: Math.round(high) } : { low, high };
}
