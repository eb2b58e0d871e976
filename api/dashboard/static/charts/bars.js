// Bars: one for each name, longest first as given; and stacked ones over days.

import { plot, widthOf } from "./axis.js";
import { px, svg } from "./dom.js";
import { parameter, percent, visible } from "./format.js";
import { chart } from "./frame.js";
import { everyNth } from "./scale.js";
import { toneAt } from "./tones.js";

const ROW = 28;

/** Draw bars into `host`; options: title, empty, items: [{name, value, tone}], format, most (what fills a row). */
export function barChart(host, options) {
  return chart(host, BARS, {
    format: percent,
    ...options,
    height: Math.max(options.items.length * ROW + 8, 90),
    isEmpty: !options.items.length,
  });
}

const BARS = {
  draw(frame) {
    const { items, format } = frame.options;
    const most = frame.options.most ?? Math.max(...items.map(({ value }) => value), 1e-12);
    const left = Math.min(
      Math.max(...items.map(({ name }) => widthOf(visible(name), "12px system-ui, sans-serif"))) + 12,
      frame.width * 0.45,
    );
    const right =
      frame.width - Math.max(...items.map(({ value }) => widthOf(format(value), "12px system-ui, sans-serif"))) - 10;
    const group = svg("g", {});
    items.forEach(({ name, value, tone }, i) => {
      const y = 4 + i * ROW;
      const end = left + ((right - left) * Math.max(value, 0)) / most;
      const label = svg(
        "text",
        { x: left - 8, y: y + 17, class: "bar-label at-end" },
        fitted(visible(name), left - 10),
      );
      label.append(svg("title", {}, visible(name)));
      group.append(
        label,
        svg("rect", { x: px(left), y: y + 4, width: px(right - left), height: ROW - 10, rx: 2, class: "bar-room" }),
        svg("rect", {
          x: px(left),
          y: y + 4,
          width: px(Math.max(end - left, 1)),
          height: ROW - 10,
          rx: 2,
          class: `fill tone-${tone ?? "blue"}`,
        }),
        svg("text", { x: px(frame.width), y: y + 17, class: "bar-value at-end" }, format(value)),
      );
    });
    frame.svg.replaceChildren(group);
  },
  summary: ({ items, format }) => items.map(({ name, value }) => `${visible(name)} ${format(value)}`).join(", "),
  table: ({ items, format }) => ({
    columns: [{ label: "field", isText: true }, { label: "value" }],
    rows: items.map(({ name, value }) => [name, format(value)]),
  }),
};

function fitted(text, room) {
  if (widthOf(text, "12px system-ui, sans-serif") <= room) return text;
  let start = 1;
  while (start < text.length - 1 && widthOf(`…${text.slice(start)}`, "12px system-ui, sans-serif") > room) start += 1;
  return `…${text.slice(start)}`;
}

/**
 * Draw stacked bars into `host`.
 *
 * options: title, height, empty, names: [text] (days), series: [{name, tone, values}], y: {label, format}, line: {label, value}
 */
export function stackChart(host, options) {
  const series = options.series.map((one, i) => ({ tone: toneAt(i), key: one.name, ...one }));
  return chart(host, STACK, {
    y: {},
    ...options,
    series,
    isEmpty: !series.some(({ values }) => values.some((value) => value > 0)),
  });
}

const STACK = {
  draw(frame) {
    const { names, line, y } = frame.options;
    const shown = frame.options.series.filter(({ key }) => !frame.hidden.has(key));
    const totals = names.map((_, i) => shown.reduce((sum, { values }) => sum + (values[i] ?? 0), 0));
    const area = plot(
      frame,
      { domain: [-0.5, names.length - 0.5], format: () => "" },
      { ...y, domain: [0, Math.max(...totals, line?.value ?? 0, 1e-9) * 1.05] },
    );
    const width = (area.right - area.left) / names.length;
    const nth = everyNth(names.length, Math.max(...names.map((name) => widthOf(name))) + 10, area.right - area.left);
    const group = svg("g", {});
    names.forEach((name, i) => {
      let base = 0;
      for (const { values, tone } of shown) {
        const value = values[i] ?? 0;
        if (value > 0)
          group.append(
            svg("rect", {
              x: px(area.x.at(i) - width * 0.4),
              y: px(area.y.at(base + value)),
              width: px(width * 0.8),
              height: px(Math.max(area.y.at(base) - area.y.at(base + value), 0.5)),
              class: `fill stacked tone-${tone}`,
            }),
          );
        base += value;
      }
      if (i % nth === 0)
        area.group.append(svg("text", { x: px(area.x.at(i)), y: area.bottom + 16, class: "tick in-middle" }, name));
    });
    if (line) {
      const at = px(area.y.at(line.value));
      group.append(
        svg("path", { d: `M${area.left} ${at}H${area.right}`, class: "limit" }),
        svg("text", { x: area.right, y: at - 4, class: "seam-label at-end" }, line.label),
      );
    }
    frame.area = area;
    frame.svg.replaceChildren(area.group, group);
  },
  legend: ({ series }) => series.map(({ key, name, tone }) => ({ key, name, tone, isLine: false, isMarked: true })),
  summary({ series, names, y }) {
    const format = y.format ?? parameter;
    return `${names.length ? `${names[0]} to ${names.at(-1)}` : ""}: ${series.map(({ name, values }) => `${visible(name)} ${format(values.reduce((a, b) => a + (b ?? 0), 0))}`).join(", ")} in all`;
  },
  hover(frame, x) {
    const { names, series, y } = frame.options;
    const i = Math.min(Math.max(Math.round(frame.area.x.value(x)), 0), names.length - 1);
    const format = y.format ?? parameter;
    frame.tip.show(
      frame.area.x.at(i),
      frame.area.top + 40,
      names[i],
      series
        .filter(({ values, key }) => values[i] > 0 && !frame.hidden.has(key))
        .map(({ name, values, tone }) => ({ name, tone, value: format(values[i]) })),
    );
  },
  table: ({ names, series, y }) => ({
    columns: [{ label: "", isText: true }, ...series.map(({ name }) => ({ label: visible(name) }))],
    rows: names.map((name, i) => [name, ...series.map(({ values }) => (y.format ?? parameter)(values[i] ?? 0))]),
  }),
};
