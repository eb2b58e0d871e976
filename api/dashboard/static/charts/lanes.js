// Lanes over time: which job held which slot from when to when; holes are idle, lost nodes are hatched.

import { widthOf } from "./axis.js";
import { px, svg } from "./dom.js";
import { visible } from "./format.js";
import { chart } from "./frame.js";
import { clock, scale } from "./scale.js";
import { TONES } from "./tones.js";

const LANE = 26;
const HATCHES = { blue: 0, orange: 45, green: 90, purple: 135, vermilion: 22, sky: 68, grey: 112, olive: 158 };

/**
 * Draw lanes into `host`.
 *
 * options: title, empty, range: [from, to] (seconds since the epoch), now,
 * lanes: [{key, label, group}], blocks: [{lane, from, to (null: still), label, detail, tone, isLost}],
 * legend: [{name, tone}], picked(block)
 */
export function laneChart(host, options) {
  return chart(host, LANES, {
    legend: [],
    ...options,
    height: Math.max(options.lanes.length, 1) * LANE + 34,
    isEmpty: !options.lanes.length,
  });
}

const LANES = {
  draw(frame) {
    const { lanes, range, now } = frame.options;
    const left = Math.min(
      Math.ceil(Math.max(...lanes.map(({ label }) => widthOf(visible(label))))) + 12,
      frame.width * 0.35,
    );
    const right = frame.width - 8;
    const x = scale("time", range, [left, right]);
    const bottom = 6 + lanes.length * LANE;
    const group = svg("g", {}, patterns());
    lanes.forEach((lane, i) => {
      const y = 6 + i * LANE;
      if (i && lane.group !== lanes[i - 1].group)
        group.append(svg("path", { d: `M0 ${y}H${right}`, class: "axis-line" }));
      group.append(
        svg("rect", { x: px(left), y: y + 2, width: px(right - left), height: LANE - 4, class: "lane" }),
        svg(
          "text",
          { x: left - 6, y: y + LANE / 2 + 4, class: "tick at-end" },
          clipped(visible(lane.label), left - 10),
        ),
      );
    });
    let end = -Infinity;
    for (const tick of x.ticks(Math.max(Math.round((right - left) / 84), 2))) {
      const [at, label] = [px(x.at(tick)), clock(tick, range[1] - range[0])];
      const half = widthOf(label) / 2;
      group.append(svg("path", { d: `M${at} 6V${bottom}`, class: "grid" }));
      if (at - half < end + 6 || at + half > frame.width) continue;
      end = at + half;
      group.append(svg("text", { x: at, y: bottom + 17, class: "tick in-middle" }, label));
    }
    frame.blocks = placed(frame.options, x, left, right);
    for (const block of frame.blocks) group.append(...drawn(block));
    if (now) group.append(svg("path", { d: `M${px(x.at(now))} 2V${bottom}`, class: "now" }));
    frame.cursor = svg("g", {});
    frame.svg.replaceChildren(group, frame.cursor);
  },
  legend: ({ legend }) =>
    legend.map(({ name, tone }) => ({ key: name, name, tone, isLine: false, isMarked: true, isFixed: true })),
  summary: ({ lanes, blocks }) =>
    `${lanes.length} lanes, ${blocks.filter(({ isLost }) => !isLost).length} stays of jobs, ${blocks.filter(({ to, isLost }) => to === null && !isLost).length} of them now`,
  hover(frame, x, y) {
    const at = frame.blocks.findIndex(
      (block) => x >= block.x && x <= block.x + block.width && y >= block.y && y <= block.y + block.height,
    );
    if (at < 0) LANES.leave(frame);
    else show(frame, at);
    if (at < 0) frame.tip.hide();
  },
  leave: (frame) => frame.cursor?.replaceChildren(),
  click(frame, x, y) {
    const block = frame.blocks?.find(
      (one) => x >= one.x && x <= one.x + one.width && y >= one.y && y <= one.y + one.height,
    );
    if (block) frame.options.picked?.(block.block);
  },
  walk(frame, key) {
    const num = frame.blocks.length;
    if (key === "Enter" && frame.at >= 0) return frame.options.picked?.(frame.blocks[frame.at].block) ?? "";
    const at = frame.at ?? -1;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: num - 1 }[key];
    return to === undefined || !num ? undefined : show(frame, Math.min(Math.max(to, 0), num - 1));
  },
  table: ({ lanes, blocks, range }) => ({
    columns: ["lane", "job", "from", "to"].map((label) => ({ label, isText: true })),
    rows: blocks.map(({ lane, label, detail, from, to }) => [
      lanes.find(({ key }) => key === lane)?.label ?? lane,
      detail ?? label,
      clock(from, range[1] - range[0]),
      to === null ? "now" : clock(to, range[1] - range[0]),
    ]),
  }),
};

function clipped(text, room) {
  if (widthOf(text) <= room) return text;
  let end = text.length;
  while (end > 1 && widthOf(`${text.slice(0, end)}…`) > room) end -= 1;
  return `${text.slice(0, end)}…`;
}

function patterns() {
  const one = (name, turn) =>
    svg(
      "pattern",
      { id: `lane-${name}`, width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: `rotate(${turn})` },
      svg("path", { d: "M0 0V7", class: "hatch" }),
    );
  return svg("defs", {}, ...TONES.map((tone) => one(tone, HATCHES[tone])), one("lost", 45));
}

function placed({ lanes, blocks, range, now }, x, left, right) {
  const rows = new Map(lanes.map(({ key }, i) => [key, i]));
  return blocks
    .filter(({ lane, from, to }) => rows.has(lane) && from < range[1] && (to ?? now ?? range[1]) > range[0])
    .map((block) => {
      const [from, to] = [Math.max(x.at(block.from), left), Math.min(x.at(block.to ?? now ?? range[1]), right)];
      return {
        block,
        x: from,
        y: 6 + rows.get(block.lane) * LANE + 3,
        width: Math.max(to - from, 1.5),
        height: LANE - 6,
      };
    });
}

function drawn({ block, x, y, width, height }) {
  const box = { x: px(x), y, width: px(width), height, rx: 2 };
  if (block.isLost) return [svg("rect", { ...box, fill: "url(#lane-lost)", class: "lane-lost" })];
  const label = clipped(visible(block.label ?? ""), width - 8);
  return [
    svg("rect", { ...box, class: `block tone-${block.tone ?? "grey"}` }),
    svg("rect", { ...box, fill: `url(#lane-${block.tone ?? "grey"})`, class: "block-hatch" }),
    width > 30 && label.length > 2
      ? svg("text", { x: px(x + 5), y: y + height / 2 + 4, class: "block-label" }, label)
      : null,
  ].filter(Boolean);
}

function show(frame, at) {
  frame.at = at;
  const { block, x, y, width, height } = frame.blocks[at];
  const span = frame.options.range[1] - frame.options.range[0];
  frame.cursor.replaceChildren(svg("rect", { x: px(x), y, width: px(width), height, rx: 2, class: "cursor" }));
  const lane = frame.options.lanes.find(({ key }) => key === block.lane);
  const rows = [
    { name: lane.label, value: `${clock(block.from, span)} to ${block.to === null ? "now" : clock(block.to, span)}` },
  ];
  if (block.detail) rows.unshift({ name: block.detail, value: "" });
  frame.tip.show(x + Math.min(width, 40), y + height, block.isLost ? "lost" : (block.label ?? ""), rows);
  return `${block.isLost ? "lost" : block.label}: ${rows.map(({ name, value }) => `${name} ${value}`.trim()).join(", ")}`;
}
