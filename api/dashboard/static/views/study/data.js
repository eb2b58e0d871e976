// What a study's charts read from REST: everything once, then only what is new.

import { getJson } from "../../http.js";

/** The data of one study: {study, plots, points}. */
export class StudyData {
  constructor(id) {
    this.id = id;
    this.points = [];
  }

  /** Read what there is now; of the points only those that are newer than the last answer. */
  async read() {
    const base = `/v1/studies/${this.id}`;
    const after = this.plots ? `?after=${encodeURIComponent(this.plots.as_of)}` : "";
    const [study, plots] = await Promise.all([getJson(base), getJson(`${base}/plots${after}`)]);
    const points = after ? merged(this.points, plots.points) : plots.points;
    if (after && isBehind(points, study)) {
      this.plots = undefined;
      return this.read();
    }
    Object.assign(this, { study, plots, points });
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
