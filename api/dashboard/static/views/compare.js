// Curves of several jobs on one pair of axes.

import { duration, ofMetric, short } from "../charts/format.js";
import { lineChart } from "../charts/line.js";
import { getJson } from "../http.js";
import { showRefusal } from "../strips.js";
import { POINTS } from "./curves.js";
import { remember } from "./state.js";

const AXES = {
  epoch: { label: "epoch", kind: "int", of: ({ epoch }) => epoch },
  step: { label: "step", kind: "int", of: ({ step }) => step },
  time: { label: "training time", kind: "duration", of: ({ trained_s: seconds }) => seconds, format: duration },
  evals: { label: "gradient evaluations", of: ({ grad_evals: evals }) => evals, format: short },
};

export function mount(element) {
  const form = element.querySelector("form");
  const chart = element.querySelector("[data-chart]");
  const ids = Array.from({ length: Number(element.dataset.num) }, (_, i) => [element.getAttribute(`data-job-${i}`), element.getAttribute(`data-name-${i}`)]);
  let jobs = [];

  const draw = () => {
    const axis = AXES[form.elements.x.value];
    const { value: name, selectedOptions } = form.elements.y;
    lineChart(chart, {
      title: selectedOptions[0].textContent,
      height: 360,
      empty: "No epoch has ended yet.",
      x: { label: axis.label, kind: axis.kind, format: axis.format },
      y: { format: ofMetric(name) },
      series: jobs.map(({ id, title, epochs }) => ({ key: id, name: title, points: epochs.map((one) => [axis.of(one), one[name] ?? NaN]) })),
      smooth: Number(form.elements.smooth.value),
    });
  };

  const load = async () => {
    try {
      const asked = new URLSearchParams([["points", POINTS], ...ids.map(([id]) => ["job", id])]);
      const { items } = await getJson(`/v1/jobs:metrics?${asked}`);
      jobs = ids.map(([id, title]) => ({ id, title, epochs: items.find((one) => one.job_id === id).items }));
      draw();
    } catch (error) {
      showRefusal(error, load);
    }
  };

  form.addEventListener("input", () => {
    draw();
    remember({ x: form.elements.x.value, y: form.elements.y.value, smooth: form.elements.smooth.value }, { x: "epoch", y: "eval_accuracy", smooth: "0" });
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("xsam:changes", ({ detail }) => {
    if (element.isConnected && detail.some((one) => ids.some(([id]) => id === one.job_id))) load();
  });
  load();
}
