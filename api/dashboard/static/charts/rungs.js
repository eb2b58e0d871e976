// Rungs of early stopping: a column for each level of compute, a dot for each trial, who went on and who was cut.

import { plot } from "./axis.js";
import { px, svg } from "./dom.js";
import { evaluations, parameter, short } from "./format.js";
import { chart } from "./frame.js";
import { domain } from "./scale.js";
import { cross } from "./tones.js";

/**
 * Draw rungs into `host`.
 *
 * options: title, height, empty, y: {label, format}, level: {label, format} of the rungs' compute (gradient evaluations),
 * rungs: [{level, cut, trials: [{number, value, isStopped}]}],
 * isKept(number), picked(number)
 */
export function rungChart(host, options) {
  return chart(host, RUNGS, { height: 300, level: EVALUATIONS, ...options, isEmpty: !options.rungs.some(({ trials }) => trials.length) });
}

/** Return a place for a dot within its column, always the same one for the same trial: in [-0.5, 0.5]. */
export function jitter(number) {
  return (((number * 0.618033988749895) % 1) - 0.5) * 0.9;
}

const EVALUATIONS = { label: "gradient evaluations", format: evaluations };

const RUNGS = {
  draw(frame) {
    const { rungs, y, isKept } = frame.options;
    const values = rungs.flatMap(({ trials, cut }) => [...trials.map(({ value }) => value), cut ?? NaN]);
    const area = plot(
      frame,
      { label: frame.options.level.label, domain: [-0.5, rungs.length - 0.5], format: () => "" },
      { ...y, domain: y.domain ?? domain(values, "linear", 0.05) },
    );
    const half = Math.min((area.right - area.left) / rungs.length / 2.4, 90);
    const group = svg("g", {});
    frame.dots = [];
    rungs.forEach((rung, i) => {
      const middle = area.x.at(i);
      group.append(
        svg("rect", {
          x: px(middle - half),
          y: area.top,
          width: px(2 * half),
          height: area.bottom - area.top,
          class: "rung",
        }),
      );
      area.group.append(
        svg("text", { x: px(middle), y: area.bottom + 16, class: "tick in-middle" }, short(rung.level)),
      );
      const paths = { on: "", cut: "", "on is-dim": "", "cut is-dim": "" };
      for (const { number, value, isStopped } of rung.trials) {
        if (!Number.isFinite(value)) continue;
        const [x, at] = [middle + jitter(number) * 2 * half * 0.9, area.y.at(value)];
        frame.dots.push({ x, y: at, number, value, isStopped, level: rung.level });
        const kind = `${isStopped ? "cut" : "on"}${(isKept?.(number) ?? true) ? "" : " is-dim"}`;
        paths[kind] += isStopped ? cross(x, at, 3) : `M${px(x)} ${px(at - 4)}l3.6 6.4h-7.2z`;
      }
      for (const [kind, path] of Object.entries(paths))
        if (path) group.append(svg("path", { d: path, class: `rung-dot is-${kind}` }));
      if (Number.isFinite(rung.cut))
        group.append(
          svg("path", { d: `M${px(middle - half)} ${px(area.y.at(rung.cut))}h${px(2 * half)}`, class: "limit" }),
        );
    });
    frame.area = area;
    frame.cursor = svg("g", {});
    frame.svg.replaceChildren(area.group, group, frame.cursor);
  },
  legend: () => [
    { key: "on", name: "went on", tone: "blue", isLine: false, isUp: true, isFixed: true },
    { key: "cut", name: "stopped", tone: "vermilion", isLine: false, isCross: true, isFixed: true },
    { key: "line", name: "cut", tone: "grey", dash: "5 3", isFixed: true },
  ],
  summary: ({ rungs, level: of }) =>
    rungs
      .map(
        ({ level, trials }) =>
          `${trials.length} trials reached ${of.format(level)}, ${trials.filter(({ isStopped }) => isStopped).length} were stopped there`,
      )
      .join("; "),
  hover(frame, x, y) {
    const dot = nearestDot(frame.dots, x, y);
    frame.cursor.replaceChildren();
    if (!dot) return frame.tip.hide();
    frame.cursor.append(svg("circle", { cx: px(dot.x), cy: px(dot.y), r: 7, class: "ring" }));
    const format = frame.options.y.format ?? parameter;
    frame.tip.show(dot.x, dot.y, `trial ${dot.number}`, [
      { name: dot.isStopped ? "stopped here" : "went on", value: format(dot.value) },
      { name: "at", value: frame.options.level.format(dot.level) },
    ]);
  },
  click(frame, x, y) {
    const dot = frame.dots && nearestDot(frame.dots, x, y);
    if (dot) frame.options.picked?.(dot.number);
  },
  leave: (frame) => frame.cursor?.replaceChildren(),
  table: ({ rungs, y, level: of }) => ({
    columns: [{ label: "level" }, { label: "trial" }, { label: y.label }, { label: "", isText: true }],
    rows: rungs.flatMap(({ level, trials }) =>
      trials.map(({ number, value, isStopped }) => [
        of.format(level),
        String(number),
        (y.format ?? parameter)(value),
        isStopped ? "stopped" : "went on",
      ]),
    ),
  }),
};

/** Return the dot nearest to a place, null for none within reach. */
export function nearestDot(dots, x, y, reach = 14) {
  let [best, least] = [null, reach * reach];
  for (const dot of dots) {
    const distance = (dot.x - x) ** 2 + (dot.y - y) ** 2;
    if (distance < least) [best, least] = [dot, distance];
  }
  return best;
}
