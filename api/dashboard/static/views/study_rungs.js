// Rungs of early stopping: a chart for each arm, kept true while trials go on.

import { html } from "../charts/dom.js";
import { evaluations, ofMetric, short } from "../charts/format.js";
import { rungChart } from "../charts/rungs.js";
import { getJson } from "../http.js";
import { showRefusal } from "../strips.js";

const LOOK_EVERY_MS = 1000;
const epochs = (level) => `${short(level)} epochs`;

export function mount(element) {
  const { study, metric } = element.dataset;
  let timer = null;

  const load = async () => {
    try {
      draw(await getJson(`/v1/studies/${study}/rungs`));
    } catch (error) {
      showRefusal(error, load);
    }
    timer = null;
  };

  const draw = ({ unit, arms }) => {
    while (element.childElementCount < arms.length)
      element.append(html("section", { class: "panel" }, html("figure", { "data-chart": "rungs" })));
    arms.forEach(({ arm, rungs }, i) => {
      const ids = new Map(rungs.flatMap(({ trials }) => trials.map(({ number, id }) => [number, id])));
      rungChart(element.children[i].firstElementChild, {
        title: `Rungs of ${arm}`,
        note: "click a trial to open it",
        empty: "No trial has reached a rung yet.",
        level: unit === "epochs" ? { label: "epochs", format: epochs } : { label: "gradient evaluations", format: evaluations },
        y: { label: metric.replace("eval_", ""), format: ofMetric(metric) },
        rungs: rungs.map(({ level, cut, trials }) => ({
          level,
          cut,
          trials: trials.map(({ number, value, is_stopped: isStopped }) => ({ number, value, isStopped })),
        })),
        picked: (number) => location.assign(`/jobs/${ids.get(number)}`),
      });
    });
  };

  const later = () => element.isConnected && (timer ??= setTimeout(load, LOOK_EVERY_MS));
  document.addEventListener("xsam:changes", ({ detail }) => {
    if (detail.some(({ job_id: id, study_id: of }) => id === study || of === study)) later();
  });
  document.addEventListener("xsam:reload", later);
  load();
}
