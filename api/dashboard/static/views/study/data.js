// What a study's charts read from REST: everything once, then only what is new.

import { getJson } from "../../http.js";

const TOP_CURVES = 12;
const CURVE_POINTS = 100;
const CURVES_EVERY_MS = 4000;

/** The data of one study: {study, plots, points, curves}. */
export class StudyData {
  constructor(id) {
    this.id = id;
    this.points = [];
  }

  /** Read what there is now; of the points only those that are newer than the last answer. */
  async read() {
    const base = `/v1/studies/${this.id}`;
    const after = this.plots ? `&after=${encodeURIComponent(this.plots.as_of)}` : "";
    const plotted = getJson(`${base}/plots?phase=search&phase=confirm${after}`);
    const [study, plots] = await Promise.all([getJson(base), plotted, this.readCurves()]);
    const points = after ? merged(this.points, plots.points) : plots.points;
    if (after && isBehind(points, study)) {
      this.plots = undefined;
      return this.read();
    }
    Object.assign(this, { study, plots, points });
  }

  /** Choose the curves that are read: of an arm, or of all, and of a phase. */
  chooseCurves(arms, phase) {
    const query = new URLSearchParams([
      ["top", TOP_CURVES],
      ["points", CURVE_POINTS],
      ["phase", phase || "search"],
      ...(arms.length === 1 ? [["arm", arms[0]]] : []),
    ]).toString();
    if (query !== this.curvesQuery) this.curvesAt = -Infinity;
    this.curvesQuery = query;
  }

  // Less often than the rest: they are long, and each epoch of any trial changes them.
  async readCurves() {
    if (performance.now() - (this.curvesAt ?? -Infinity) < CURVES_EVERY_MS) return;
    this.curvesAt = performance.now();
    this.curves = (await getJson(`/v1/studies/${this.id}/curves?${this.curvesQuery}`)).items;
  }
}

/** Return points by number, with newer ones in the place of those that they replace. */
export function merged(points, newer) {
  const byNumber = new Map([...points, ...newer].map((point) => [point.number, point]));
  return [...byNumber.values()].sort((a, b) => a.number - b.number);
}

/** Return whether a trial that had failed is no longer so: it is tried again, and its point is not among the newer ones. */
function isBehind(points, study) {
  return points.filter(({ state }) => state === "failed").length > (study.num_by_state.failed ?? 0);
}
