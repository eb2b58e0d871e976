// Searches for alpha*: where it was, the probe curves as a heat map, and one of them as a curve.

import { edgeShare, heatChart } from "../charts/heat.js";
import { loss, parameter } from "../charts/format.js";
import { lineChart } from "../charts/line.js";
import { getJson } from "../http.js";
import { showRefusal } from "../strips.js";
import { remember } from "./state.js";

const EDGE_SHARE = 0.2;
const MOST = 400;

function thinned(all) {
  const step = Math.ceil(all.length / MOST);
  return step > 1 ? all.filter((_, i) => i % step === 0 || i === all.length - 1) : all;
}

export function mount(element) {
  const part = (name) => element.querySelector(`[data-chart=${name}]`);
  const slider = element.querySelector("[data-pick]");
  const edge = element.querySelector("[data-edge]");
  let searches = [];
  let at = null;
  let asked = null;

  const drawCurve = () => {
    const search = searches[at];
    if (search === undefined) return;
    lineChart(part("curve"), {
      title: `Probe curve of step ${search.step.toLocaleString("en-US")}: α* ${parameter(search.alpha)}`,
      height: 200,
      x: { label: "α" },
      y: { label: "loss", format: loss },
      series: [{ name: "loss", tone: "blue", isMarked: true, points: search.alphas.map((alpha, i) => [alpha, search.losses[i]]) }],
      seams: [{ x: search.alpha, label: "α*" }],
    });
  };

  const pick = (next) => {
    at = next;
    slider.value = next;
    slider.setAttribute("aria-valuetext", `step ${searches[next].step}`);
    remember({ search: searches[next].step });
    heatChart(part("heat"), { ...heatOptions(), at });
    drawCurve();
  };

  const heatOptions = () => ({ title: "Probe curves: loss above each curve's own least", empty: "No search yet.", searches, at, picked: pick });

  const draw = () => {
    slider.max = searches.length - 1;
    if (at === null) {
      const wanted = Number(element.dataset.search || NaN);
      const found = searches.findIndex(({ step }) => step >= wanted);
      at = found < 0 ? searches.length - 1 : found;
      slider.value = at;
    }
    const mean = searches.reduce((sum, { alpha }) => sum + alpha, 0) / searches.length;
    lineChart(part("trajectory"), {
      title: "α* over steps",
      note: `mean ${parameter(mean)}`,
      empty: "No search yet.",
      height: 240,
      x: { label: "step", kind: "int" },
      y: { format: parameter },
      series: [
        { name: "α*", tone: "blue", isPoints: true, points: searches.map(({ step, alpha }) => [step, alpha]) },
        { name: "angle of v0 and v1 (rad)", tone: "orange", points: searches.map(({ step, angle_rad: angle }) => [step, angle]) },
      ],
      picked: (step) => pick(searches.findIndex((one) => one.step === step)),
    });
    heatChart(part("heat"), heatOptions());
    drawCurve();
    const share = edgeShare(searches);
    edge.hidden = share <= EDGE_SHARE;
    edge.textContent = `α* lies at an edge of the range in ${Math.round(100 * share)} % of the searches: widen the range.`;
  };

  const load = async () => {
    if (asked !== null) return;
    asked = getJson(`/v1/jobs/${element.dataset.job}/alpha`);
    try {
      const all = thinned((await asked).items);
      if (all.length) {
        if (at !== null && at === searches.length - 1) at = all.length - 1;
        searches = all;
        draw();
      }
    } catch (error) {
      showRefusal(error, load);
    } finally {
      asked = null;
    }
  };

  slider.addEventListener("input", () => pick(Number(slider.value)));
  document.addEventListener("xsam:progress", () => element.isConnected && load());
  load();
}
