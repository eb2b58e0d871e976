// Searches for alpha*: where it was, the probe curves as a heat map, and one of them as a curve.

import { heatChart } from "../charts/heat.js";
import { loss, parameter } from "../charts/format.js";
import { lineChart } from "../charts/line.js";
import { getJson } from "../http.js";
import { showRefusal } from "../strips.js";
import { remember } from "./state.js";

const EDGE_SHARE = 0.2;

/** Return the columns of the matrix as curves of their own: a curve ends where its searches do. */
function curvesOf({ alphas, columns }) {
  return columns.map((column) => {
    const known = alphas.map((alpha, i) => [alpha, column.losses[i]]).filter(([, value]) => value !== null);
    return { ...column, alphas: known.map(([alpha]) => alpha), losses: known.map(([, value]) => value) };
  });
}

const stepOf = ({ step, num }) => (num === 1 ? `Probe curve of step ${step.toLocaleString("en-US")}` : `Mean of ${num} probe curves from step ${step.toLocaleString("en-US")}`);

export function mount(element) {
  const part = (name) => element.querySelector(`[data-chart=${name}]`);
  const slider = element.querySelector("[data-pick]");
  const edge = element.querySelector("[data-edge]");
  let searches = [];
  let map = null;
  let at = null;
  let asked = null;

  /** Return where the search of a step is; the last one for none. */
  const indexOf = (wanted) => {
    const found = searches.findLastIndex(({ step }) => step <= wanted);
    return found < 0 ? searches.length - 1 : found;
  };

  const drawCurve = () => {
    const search = searches[at];
    if (search === undefined) return;
    lineChart(part("curve"), {
      title: `${stepOf(search)}: α* ${parameter(search.alpha)}`,
      height: 200,
      x: { label: "α" },
      y: { label: "loss above its least", format: loss },
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

  const share = () => map.low_edge_share + map.high_edge_share;
  const heatOptions = () => ({ title: "Probe curves: loss above each curve's own least", empty: "No search yet.", searches, num: map.num_searches, edgeShare: share(), at, picked: pick });

  const draw = () => {
    slider.max = searches.length - 1;
    slider.value = at;
    const mean = searches.reduce((sum, { alpha, num }) => sum + alpha * num, 0) / map.num_searches;
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
    const [low, high] = [map.low_edge_share, map.high_edge_share].map((one) => Math.round(100 * one));
    edge.hidden = share() <= EDGE_SHARE;
    edge.textContent = `α* lies at an edge of the grid in ${Math.round(100 * share())} % of the ${map.num_searches.toLocaleString("en-US")} searches (${low} % at its low end, ${high} % at its high end): widen the range.`;
  };

  const load = async () => {
    if (asked !== null) return;
    asked = getJson(`/v1/jobs/${element.dataset.job}/alpha-map`);
    try {
      const found = await asked;
      if (found.columns.length) {
        const wanted = at === null ? Number(element.dataset.search || NaN) : at === searches.length - 1 ? NaN : searches[at].step;
        [map, searches] = [found, curvesOf(found)];
        at = indexOf(wanted);
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
