// Curves of one job over epochs, steps, seconds or gradient evaluations; attempts are seams on them.

import { lineChart } from "../charts/line.js";
import { duration, loss, parameter, percent, short } from "../charts/format.js";
import { getJson } from "../http.js";
import { showRefusal } from "../strips.js";
import { remember } from "./state.js";

export const POINTS = 400;

const AXES = {
  epoch: { label: "epoch", kind: "int", of: ({ epoch }) => epoch },
  step: { label: "step", kind: "int", of: ({ step }) => step },
  time: { label: "training time", kind: "duration", of: ({ trained_s: seconds }) => seconds, format: duration },
  evals: { label: "gradient evaluations", of: ({ grad_evals: evals }) => evals, format: short },
};

const CHARTS = [
  { title: "Loss", series: [["train", "train_loss"], ["eval", "eval_loss"]], format: loss, isLoss: true },
  { title: "Accuracy", series: [["train", "train_accuracy"], ["eval", "eval_accuracy"]], format: percent },
  { title: "Learning rate", series: [["lr", "lr"]], format: parameter, isFolded: true },
  { title: "Samples a second", series: [["samples/s", "samples_per_s"]], format: short, isFolded: true },
  { title: "Gradient evaluations", series: [["evaluations", "grad_evals"], ["probes", "probe_forwards"]], format: short, isFolded: true },
];

function slot(host, title, isFolded) {
  const section = document.createElement(isFolded ? "details" : "section");
  section.className = "panel";
  if (isFolded) {
    const summary = document.createElement("summary");
    summary.textContent = title;
    section.append(summary);
  }
  const chart = document.createElement("div");
  section.append(chart);
  host.append(section);
  return chart;
}

export function seamsOf(epochs, axis) {
  return epochs.slice(1).flatMap((one, i) => (one.attempt === epochs[i].attempt ? [] : [{ x: axis.of(epochs[i]), label: `attempt ${one.attempt}` }]));
}

export function mount(element) {
  const form = element.querySelector("form");
  const host = element.querySelector("[data-charts]");
  const charts = new Map();
  let epochs = [];
  let asked = null;

  const chartOf = (title, isFolded) => {
    if (!charts.has(title)) charts.set(title, slot(host, title, isFolded));
    return charts.get(title);
  };

  const draw = () => {
    const axis = AXES[form.elements.x.value];
    const smooth = Number(form.elements.smooth.value);
    const isLog = form.elements.log.checked;
    const own = [...new Set(epochs.flatMap(({ metrics }) => Object.keys(metrics)))];
    const all = [...CHARTS, ...own.map((name) => ({ title: name, series: [[name, name]], format: parameter, isOwn: true }))];
    for (const { title, series, format, isLoss, isFolded, isOwn } of all) {
      const value = (one, key) => (isOwn ? one.metrics[key] : one[key]) ?? NaN;
      const drawn = series.map(([name, key]) => ({ name, key, points: epochs.map((one) => [axis.of(one), value(one, key)]) }));
      if (title === "Accuracy" && epochs.length && drawn.every(({ points }) => points.every(([, y]) => Number.isNaN(y)))) continue;
      lineChart(chartOf(title, isFolded), {
        title: isFolded ? "" : title,
        empty: "No epoch has ended yet.",
        x: { label: axis.label, kind: axis.kind, format: axis.format },
        y: { format, kind: isLoss && isLog ? "log" : "linear" },
        series: drawn,
        seams: seamsOf(epochs, axis),
        smooth: isFolded ? 0 : smooth,
      });
    }
  };

  const load = async () => {
    if (asked !== null) return;
    asked = getJson(`/v1/jobs/${element.dataset.job}/metrics?points=${POINTS}&after=${epochs.at(-1)?.epoch ?? 0}`);
    try {
      const { items } = await asked;
      epochs = [...epochs, ...items];
      draw();
    } catch (error) {
      showRefusal(error, load);
    } finally {
      asked = null;
    }
  };

  form.addEventListener("input", () => {
    draw();
    remember({ x: form.elements.x.value, smooth: form.elements.smooth.value, log: form.elements.log.checked }, { x: "epoch", smooth: "0", log: false });
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("xsam:progress", ({ detail }) => {
    if (!element.isConnected) return;
    const last = epochs.at(-1);
    // A run that went back to a checkpoint writes some epochs again.
    if (detail === null || (last && (detail.epochs_done < last.epoch || detail.attempt !== last.attempt))) epochs = [];
    if (detail === null || detail.epochs_done > (epochs.at(-1)?.epoch ?? 0)) load();
  });
  load();
}
