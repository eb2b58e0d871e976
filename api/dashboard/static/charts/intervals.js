// Differences with their intervals, one row each, against zero: the verdict of a study's arms.

import { plot, widthOf } from "./axis.js";
import { domain } from "./scale.js";
import { px, svg } from "./dom.js";
import { signed, visible } from "./format.js";
import { chart } from "./frame.js";

const ROW = 34;

/**
 * Draw intervals into `host`.
 *
 * options: title, empty, label (of the difference), items: [{name, value, low, high, tone, isDoubtful}], format
 */
export function intervalChart(host, options) {
  return chart(host, INTERVALS, {
    format: signed,
    ...options,
    height: options.items.length * ROW + 46,
    isEmpty: !options.items.length,
  });
}

const INTERVALS = {
  draw(frame) {
    const { items, format, label } = frame.options;
    const left = Math.min(
      Math.max(...items.map(({ name }) => widthOf(visible(name), "12px system-ui, sans-serif"))) + 16,
      frame.width * 0.4,
    );
    const ends = items.flatMap(({ value, low, high }) => [value, low ?? value, high ?? value]);
    const inner = { ...frame, width: frame.width - left, height: frame.height };
    const area = plot(
      inner,
      { label, domain: domain([0, ...ends], "linear", 0.08), format },
      { domain: [0, 1], format: () => "" },
    );
    const group = svg("g", { transform: `translate(${left} 0)` }, area.group);
    for (const line of area.group.querySelectorAll(".grid")) line.remove();
    group.append(svg("path", { d: `M${px(area.x.at(0))} 4V${area.bottom}`, class: "zero" }));
    items.forEach((item, i) => group.append(interval(item, area, 8 + (i + 0.5) * ROW)));
    const names = items.map(({ name }, i) =>
      svg("text", { x: 0, y: 12 + (i + 0.5) * ROW, class: "bar-label" }, visible(name)),
    );
    frame.svg.replaceChildren(group, ...names);
  },
  summary: ({ items, format }) => items.map((item) => told(item, format)).join("; "),
  table: ({ items, format }) => ({
    columns: [{ label: "", isText: true }, { label: "difference" }, { label: "from" }, { label: "to" }],
    rows: items.map(({ name, value, low, high }) => [name, format(value), format(low), format(high)]),
  }),
};

function interval({ value, low, high, tone = "blue", isDoubtful }, area, y) {
  const at = px(area.x.at(value));
  const group = svg("g", { class: `tone-${tone} ${isDoubtful ? "is-doubtful" : ""}` });
  if (Number.isFinite(low) && Number.isFinite(high)) {
    const [from, to] = [px(area.x.at(low)), px(area.x.at(high))];
    group.append(
      svg("path", {
        d: `M${from} ${y}H${to}M${from} ${y - 6}v12M${to} ${y - 6}v12`,
        class: "stroke interval",
        "stroke-dasharray": isDoubtful ? "4 3" : null,
      }),
    );
  }
  group.append(svg("circle", { cx: at, cy: y, r: 5, class: "fill" }));
  return group;
}

function told({ name, value, low, high }, format) {
  return Number.isFinite(low)
    ? `${visible(name)} ${format(value)}, between ${format(low)} and ${format(high)}`
    : `${visible(name)} ${format(value)}`;
}
