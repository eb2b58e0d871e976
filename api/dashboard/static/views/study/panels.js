// The panels of a study: each a chart over the same trials and the same selection.

import { barChart } from "../../charts/bars.js";
import { html } from "../../charts/dom.js";
import { evaluations, ofMetric, parameter, visible } from "../../charts/format.js";
import { intervalChart } from "../../charts/intervals.js";
import { lineChart } from "../../charts/line.js";
import { mapChart } from "../../charts/map.js";
import { parallelChart, reselect as reselectLines } from "../../charts/parallel.js";
import { scatterChart, reselect as reselectDots } from "../../charts/scatter.js";
import { armTone } from "../../charts/tones.js";
import { keptTable } from "./kept.js";
import {
  ARM,
  COST,
  VALUE,
  axesOf,
  betterFirst,
  cellsOf,
  curveLines,
  drawnAxes,
  histories,
  labelOf,
  mapOf,
  noiseOf,
  overFormat,
  partOf,
  trialsOf,
} from "./model.js";

export class Panels {
  constructor(element, selection, { ordered, toggled }) {
    this.element = element;
    this.selection = selection;
    this.told = { ordered, toggled };
    this.picked = (number) => selection.pick(number === selection.trial ? null : number);
  }

  host(name) {
    return this.element.querySelector(`[data-chart="${name}"]`);
  }

  fill(name) {
    return this.element.querySelector(`[data-fills="${name}"]`);
  }

  /** Draw everything of what was read. */
  draw(data, view) {
    const { study, plots } = data;
    Object.assign(this, { data, view, study, mode: study.spec.objective.mode, metric: study.spec.objective.metric });
    this.format = ofMetric(this.metric);
    this.name = this.metric.replace("eval_", "");
    this.axes = axesOf(plots);
    const wanted = ({ arm, phase }) =>
      (!view.arm.length || view.arm.includes(arm)) && phase === (view.phase || "search");
    this.trials = trialsOf(data.points, this.axes).filter(wanted);
    this.drawVerdict();
    this.isConfirming = view.phase === "confirm";
    this.show("seeds", this.isConfirming);
    for (const name of ["history", "slices"]) this.show(name, !this.isConfirming);
    if (this.isConfirming) this.drawSeeds();
    else this.drawHistory();
    this.drawMap();
    this.drawCurves();
    this.drawParallel();
    if (!this.isConfirming) {
      this.drawImportances();
      this.drawSlices();
    }
    this.drawKept();
  }

  /** Show the selection again; what costs more than a frame waits until the pointer is let go. */
  reselect(isFinal) {
    if (!this.study) return;
    if (this.parallel) reselectLines(this.parallel);
    for (const frame of [this.seeds, ...(this.slices ?? [])]) if (frame) reselectDots(frame);
    this.drawKept(isFinal);
    if (isFinal) this.drawMap();
  }

  get kept() {
    return this.trials.filter((trial) => this.selection.keeps(trial)).sort(betterFirst(this.mode));
  }

  drawVerdict() {
    const { comparisons } = this.study;
    const host = document.getElementById("verdict-chart");
    host.hidden = !comparisons.length;
    if (!comparisons.length) return;
    const items = comparisons.map(({ arm, against, gain, low, high, basis }) => ({
      name: `${arm} against ${against}`,
      value: gain,
      low,
      high,
      tone: armTone(arm),
      isDoubtful: basis === "search",
    }));
    intervalChart(host, {
      title: "Difference, 95 % interval",
      note: items.some(({ isDoubtful }) => isDoubtful) ? "dashed: on the seeds that chose it" : "on fresh seeds",
      label: `gain in ${this.name}`,
      items,
    });
  }

  drawHistory() {
    const over = overFormat(this.view.x);
    lineChart(this.host("history"), {
      title: "Best so far",
      isStep: true,
      note: this.trials.some(({ seed }, _, [first]) => seed !== first.seed) ? "± over seeds" : "",
      x: over,
      y: { label: this.name, format: this.format },
      series: histories(this.trials, this.mode, this.view.x),
      empty: "No trial has a value yet.",
    });
  }

  show(name, isShown) {
    this.element.querySelector(`[data-shown="${name}"]`).hidden = !isShown;
  }

  /** Draw what each arm's best configuration is worth on each fresh seed. */
  drawSeeds() {
    const names = [...new Set(this.trials.map(({ arm }) => arm))];
    this.seeds = scatterChart(this.host("seeds"), {
      title: "Confirmation, seed by seed",
      note: "each arm's best configuration",
      height: 260,
      x: { key: ARM, label: "arm", kind: "choice", names },
      y: { label: this.name, format: this.format },
      trials: this.trials,
      selection: this.selection,
      picked: this.picked,
      empty: "No fresh seed has been trained yet.",
    });
  }

  drawCurves() {
    const lines = curveLines(this.data.curves ?? [], this.view.arm);
    const isBanded = lines.some(({ band }) => band.length > 1);
    lineChart(this.host("curves"), {
      title: this.isConfirming ? "Curves of the confirmation" : "Curves of the best configurations",
      note: isBanded ? "mean ± deviation over seeds" : "",
      isPlain: true,
      x: { label: "gradient evaluations", format: evaluations },
      y: { label: this.name, format: this.format },
      series: lines,
      empty: "No trial has reported an epoch yet.",
    });
  }

  drawMap() {
    const hasMap = this.axes.length > 1 && !this.isConfirming;
    this.show("map", hasMap);
    if (!hasMap) return;
    const usual = this.data.plots.map;
    const axisOf = (path, other) => this.axes.find(({ key }) => key === path) ?? other;
    const across = axisOf(this.view.across, axisOf(usual?.across, this.axes[0]));
    const down = axisOf(this.view.down, axisOf(usual?.down, this.axes[1]));
    const own = this.trials.filter(({ arm }) => arm === this.study.arms[0].arm);
    const { stat } = this.view;
    const isUsual = usual && usual.across === across.key && usual.down === down.key;
    const map = isUsual ? usual : mapOf(own, across, down, this.mode);
    const cells = map ? cellsOf(map, own, [across, down], { stat, mode: this.mode, noise: noiseOf(this.study) }) : [];
    mapChart(this.host("map"), {
      title: `${labelOf(across.key)} × ${labelOf(down.key)}: ${stat}`,
      note: `of ${this.study.arms[0].arm}`,
      mode: stat === "count" ? "max" : this.mode,
      label: stat === "count" ? "trials" : stat,
      format:
        stat === "count"
          ? parameter
          : (value) => (value === null ? "-" : this.format === parameter ? parameter(value) : value.toFixed(3)),
      across: { label: across.kind === "log" ? `${across.label} (log)` : across.label, names: map.columns },
      down: { label: down.label, names: map.rows },
      cells,
      isKept: this.selection.isEmpty ? undefined : (cell) => cell.trials.some((trial) => this.selection.keeps(trial)),
      picked: (cell) => this.pickCell(cell, across, down, map),
      empty: "No trial of this arm has a value yet.",
    });
  }

  pickCell({ column, row }, across, down, map) {
    const wanted = {
      [across.key]: partOf(across, column, map.columns.length),
      [down.key]: partOf(down, row, map.rows.length),
    };
    const isSame = Object.entries(wanted).every(
      ([key, { low }]) => Math.abs((this.selection.ranges.get(key)?.low ?? Infinity) - low) <= 1e-5 * Math.abs(low),
    );
    this.selection.set(isSame ? { [across.key]: null, [down.key]: null } : wanted);
    return `${this.kept.length} trials kept`;
  }

  drawParallel() {
    this.parallel = parallelChart(this.host("parallel"), {
      title: "Parallel coordinates",
      note: "drag on an axis to filter",
      mode: this.mode,
      axes: drawnAxes(this.axes, this.trials, this.metric, this.view),
      trials: this.trials,
      selection: this.selection,
      byScore: this.view.color === "value",
      empty: "No trial has ended yet.",
      ...this.told,
    });
  }

  drawImportances() {
    const items = Object.entries(this.data.plots.importances).map(([path, value]) => ({ name: labelOf(path), value }));
    this.show("importances", this.axes.length > 1);
    barChart(this.host("importances"), {
      title: "Importances",
      note: `of ${this.study.arms[0].arm}, among its better trials`,
      items,
      most: 1,
      empty: "Too few trials to tell.",
    });
  }

  drawSlices() {
    const host = this.element.querySelector(".slices");
    while (host.childElementCount <= this.axes.length) host.append(html("section", { class: "panel" }, html("figure")));
    this.slices = this.axes.map((axis, i) => {
      const kind =
        axis.kind === "choice"
          ? "choice"
          : (axis.kind === "log") !== this.view.log.includes(axis.key)
            ? "log"
            : axis.kind === "log"
              ? "linear"
              : axis.kind;
      return scatterChart(host.children[i + 1].firstElementChild, {
        title: labelOf(axis.key),
        x: { ...axis, kind },
        y: { label: this.name, format: this.format },
        trials: this.trials,
        selection: this.selection,
        picked: this.picked,
        empty: "No trial has ended yet.",
      });
    });
  }

  drawKept(isFinal = true) {
    const { kept } = this;
    this.element.querySelector('[data-says="kept"]').textContent = this.selection.isEmpty
      ? `${this.trials.length} trials`
      : `${kept.length} of ${this.trials.length} kept`;
    if (!isFinal) return;
    const top = kept.slice(0, Number(this.view.top));
    this.fill("kept").replaceChildren(
      keptTable(top, this.axes, {
        format: this.format,
        metric: this.name,
        selected: this.selection.trial,
        picked: this.picked,
        isAll: this.selection.isEmpty,
      }),
    );
    this.drawBrushes();
    this.link(top);
  }

  drawBrushes() {
    const { selection } = this;
    const chips = [...selection.ranges].map(([key, range]) =>
      html(
        "button",
        { type: "button", class: "chip", title: "let go of this range", onclick: () => selection.set({ [key]: null }) },
        visible(`${this.nameOf(key)} ${this.rangeOf(key, range)} ✕`),
      ),
    );
    if (chips.length > 1)
      chips.push(html("button", { type: "button", class: "link", onclick: () => selection.clear() }, "clear"));
    this.fill("brushes").replaceChildren(...chips);
  }

  nameOf(key) {
    return key === VALUE ? this.name : labelOf(key);
  }

  rangeOf(key, { low, high }) {
    const axis = this.axes.find((one) => one.key === key);
    if (axis?.kind === "choice") return axis.names.slice(low, high + 1).join(", ");
    if (key === "arm") return [...new Set(this.trials.map(({ arm }) => arm))].slice(low, high + 1).join(", ");
    const format = key === VALUE ? this.format : parameter;
    return low === high ? format(low) : `${format(low)} to ${format(high)}`;
  }

  link(top) {
    const ids = top
      .slice(0, 12)
      .map(({ id }) => id)
      .filter(Boolean);
    const compare = this.element.querySelector('[data-links="compare"]');
    compare.hidden = ids.length < 2;
    compare.href = `/jobs/compare?${new URLSearchParams(ids.map((id) => ["id", id]))}`;
    const extend = this.element.querySelector('[data-links="extend"]');
    const narrowed = [...this.selection.ranges].filter(([key]) => ![VALUE, COST, "arm"].includes(key));
    if (extend)
      extend.href = `/studies/new?${new URLSearchParams([["from", this.data.id], ...narrowed.map(([key, { low, high }]) => ["range", `${key}:${low}..${high}`])])}`;
    const best = this.selection.trial ?? (this.selection.isEmpty ? "" : (top[0]?.number ?? ""));
    for (const field of document.querySelectorAll('[data-fills="trial"]')) field.value = best;
  }
}
