// Curves: one or more lines over a shared x, with smoothing, bands, seams of attempts, log axes and a crosshair.

import { labelled, plot } from "./axis.js";
import { px, svg } from "./dom.js";
import { chart } from "./frame.js";
import { domain } from "./scale.js";
import { nearest, smoothed, thinned } from "./stats.js";
import { dashOf, mark, toneAt } from "./tones.js";

/**
 * Draw curves into `host`.
 *
 * options:
 *   title, height, empty, note
 *   x: {label, kind: linear|log|int|time|duration, format}
 *   y: {label, kind: linear|log, format, domain}
 *   series: [{name, key, tone, dash, points: [[x, y], ...] ordered by x, band: [[x, low, high], ...], isMarked, isPoints}]
 *   seams: [{x, label}]       where an attempt ended and the next went on
 *   smooth: weight in [0, 1)  the raw line stays, faintly
 *   isStep                    a value holds until the next one
 *   isPlain                   too many lines to name each below the chart
 *   picked(x)                 called with the x that was clicked
 */
export function lineChart(host, options) {
  const series = options.series.map((one, i) => prepared(one, i, options));
  const isEmpty = !series.some((one) => one.points.some(([, y]) => Number.isFinite(y)));
  return chart(host, LINE, { ...options, series, isEmpty });
}

function prepared(one, index, options) {
  const tone = one.tone ?? toneAt(index);
  const usable = options.y?.kind === "log" ? one.points.map(([x, y]) => [x, y > 0 ? y : NaN]) : one.points;
  const values = smoothed(
    usable.map(([, y]) => y),
    options.smooth ?? 0,
  );
  return {
    ...one,
    tone,
    key: one.key ?? one.name,
    dash: one.dash === undefined ? dashOf(tone) : one.dash,
    raw: usable,
    points: usable.map(([x], i) => [x, values[i]]),
    band: one.band ?? [],
  };
}

const LINE = {
  draw(frame) {
    const { options } = frame;
    const shown = options.series.filter((one) => !frame.hidden.has(one.key));
    const area = plot(
      frame,
      {
        ...options.x,
        label: labelled(options.x?.label ?? "", options.x?.kind),
        domain: domain(xs(options, shown), options.x?.kind),
      },
      {
        ...options.y,
        label: labelled(options.y?.label ?? "", options.y?.kind),
        domain: options.y?.domain ?? domain(ys(shown), options.y?.kind, 0.04),
      },
    );
    const group = svg("g", {});
    for (const seam of options.seams ?? []) group.append(...seamMark(area, seam));
    for (const one of shown) group.append(...curve(one, area, options));
    frame.crosshair = svg("g", { class: "crosshair" });
    frame.area = area;
    frame.svg.replaceChildren(area.group, group, frame.crosshair);
  },
  summary: (options) =>
    options.series
      .map((one) => told(one, options))
      .filter(Boolean)
      .join("; ") || "nothing yet",
  legend: (options) =>
    options.series.length > 1 && !options.isPlain
      ? options.series.map((one) => ({
          key: one.key,
          name: one.name,
          tone: one.tone,
          dash: one.dash,
          isMarked: one.isMarked || one.isPoints,
          isLine: !one.isPoints,
        }))
      : [],
  hover: (frame, x) => point(frame, frame.area.x.value(x)),
  leave: (frame) => {
    frame.at = null;
    frame.crosshair?.replaceChildren();
  },
  click: (frame, x) => {
    if (frame.options.picked && !frame.options.isEmpty) frame.options.picked(nearestX(frame, frame.area.x.value(x)));
  },
  walk(frame, key) {
    const all = steps(frame);
    if (!all.length) return undefined;
    const at = frame.at === null || frame.at === undefined ? -1 : all.indexOf(frame.at);
    const to = { ArrowRight: at + 1, ArrowLeft: at < 0 ? all.length - 1 : at - 1, Home: 0, End: all.length - 1 }[key];
    if (key === "Enter" && at >= 0 && frame.options.picked) return frame.options.picked(all[at]) ?? "";
    if (to === undefined) return undefined;
    return point(frame, all[Math.min(Math.max(to, 0), all.length - 1)]);
  },
  table(options) {
    const columns = [{ label: options.x?.label ?? "x" }, ...options.series.map((one) => ({ label: one.name }))];
    const rows = new Map();
    options.series.forEach((one, i) =>
      one.raw.forEach(([x, y]) => {
        if (!rows.has(x)) rows.set(x, new Array(options.series.length).fill(null));
        rows.get(x)[i] = y;
      }),
    );
    const [formatX, formatY] = [options.x?.format ?? String, options.y?.format ?? String];
    return {
      columns,
      rows: [...rows]
        .sort(([a], [b]) => a - b)
        .map(([x, values]) => [formatX(x), ...values.map((y) => (y === null ? "-" : formatY(y)))]),
    };
  },
};

function* xs(options, shown) {
  for (const one of shown) for (const [x] of one.points) yield x;
  for (const { x } of options.seams ?? []) yield x;
}

function* ys(shown) {
  for (const one of shown) {
    for (const [, y] of one.raw) yield y;
    for (const [, low, high] of one.band) {
      yield low;
      yield high;
    }
  }
}

function curve(one, area, options) {
  const at = ([x, y]) => [px(area.x.at(x)), px(Math.min(Math.max(area.y.at(y), area.top - 20), area.bottom + 20))];
  const found = [];
  if (one.band.length > 1) found.push(svg("path", { d: bandPath(one.band, area), class: `band tone-${one.tone}` }));
  if (one.isPoints)
    return [
      ...found,
      svg("path", {
        d: one.points
          .filter(([, y]) => Number.isFinite(y))
          .map((p) => mark(one.tone, ...at(p), 2.5))
          .join(""),
        class: `fill tone-${one.tone}`,
      }),
    ];
  const path = (points) =>
    linePath(
      thinned(points).map((p) => (Number.isFinite(p[1]) ? at(p) : null)),
      options.isStep,
      area,
    );
  if (options.smooth > 0) found.push(svg("path", { d: path(one.raw), class: `line is-raw tone-${one.tone}` }));
  found.push(svg("path", { d: path(one.points), class: `line tone-${one.tone}`, "stroke-dasharray": one.dash }));
  const finite = one.points.filter(([, y]) => Number.isFinite(y));
  if (finite.length === 1 || one.isMarked)
    found.push(
      svg("path", { d: finite.map((p) => mark(one.tone, ...at(p))).join(""), class: `fill tone-${one.tone}` }),
    );
  return found;
}

/** Return the path through places, broken at null; of a step line a value holds until the next. */
export function linePath(places, isStep = false) {
  let [path, isOpen] = ["", false];
  for (const place of places) {
    if (place === null) isOpen = false;
    else {
      path += !isOpen ? `M${place[0]} ${place[1]}` : isStep ? `H${place[0]}V${place[1]}` : `L${place[0]} ${place[1]}`;
      isOpen = true;
    }
  }
  return path;
}

function bandPath(band, area) {
  const edge = (i) => band.map((row) => `${px(area.x.at(row[0]))} ${px(area.y.at(row[i]))}`);
  return `M${edge(2).join("L")}L${edge(1).reverse().join("L")}Z`;
}

function seamMark(area, { x, label }) {
  const at = px(area.x.at(x));
  const isLate = at > (area.left + area.right) / 2;
  return [
    svg("path", { d: `M${at} ${area.top}V${area.bottom}`, class: "seam" }),
    svg("text", { x: at + (isLate ? -5 : 5), y: area.top + 10, class: `seam-label ${isLate ? "at-end" : ""}` }, label),
  ];
}

function steps(frame) {
  const found = new Set();
  for (const one of frame.options.series)
    if (!frame.hidden.has(one.key)) for (const [x, y] of one.points) if (Number.isFinite(y)) found.add(x);
  return [...found].sort((a, b) => a - b);
}

function nearestX(frame, x) {
  const scale = frame.area.x;
  let best = null;
  for (const one of frame.options.series) {
    if (frame.hidden.has(one.key) || !one.points.length) continue;
    const found = one.points[nearest(one.points, x)][0];
    if (best === null || Math.abs(scale.at(found) - scale.at(x)) < Math.abs(scale.at(best) - scale.at(x))) best = found;
  }
  return best;
}

function point(frame, wanted) {
  const { area, options } = frame;
  const x = nearestX(frame, wanted);
  if (x === null || x === undefined) return undefined;
  frame.at = x;
  const at = px(area.x.at(x));
  const rows = [];
  const dots = [];
  for (const one of options.series) {
    if (frame.hidden.has(one.key) || !one.points.length) continue;
    const place = options.isStep ? held(one.points, x) : one.points[nearest(one.points, x)];
    if (!place || !Number.isFinite(place[1])) continue;
    if (!options.isStep && Math.abs(area.x.at(place[0]) - at) > 12) continue;
    rows.push({ name: one.name, value: area.formatY(place[1]), tone: one.tone });
    dots.push(svg("path", { d: mark(one.tone, at, area.y.at(place[1]), 4), class: `fill dot tone-${one.tone}` }));
  }
  if (options.isPlain) rows.reverse(); // the last one lies on top
  frame.crosshair.replaceChildren(svg("path", { d: `M${at} ${area.top}V${area.bottom}`, class: "hair" }), ...dots);
  const title = `${options.x?.label ?? ""} ${area.formatX(x)}`.trim();
  frame.tip.show(at, area.top + 30, title, rows);
  return `${title}: ${rows.map(({ name, value }) => `${name} ${value}`).join(", ")}`;
}

function held(points, x) {
  const i = nearest(points, x);
  return points[i][0] <= x ? points[i] : points[i - 1];
}

function told(one, options) {
  const finite = one.raw.filter(([, y]) => Number.isFinite(y));
  if (!finite.length) return "";
  const format = options.y?.format ?? ((value) => String(Number(value.toPrecision(3))));
  const formatX = options.x?.format ?? ((value) => String(Number(value.toPrecision(6))));
  let [low, high] = [finite[0], finite[0]];
  for (const point of finite) {
    if (point[1] < low[1]) low = point;
    if (point[1] > high[1]) high = point;
  }
  const [first, last] = [finite[0], finite.at(-1)];
  return `${one.name} from ${format(first[1])} to ${format(last[1])} over ${options.x?.label ?? "x"} ${formatX(first[0])} to ${formatX(last[0])}, lowest ${format(low[1])}, highest ${format(high[1])}`;
}
