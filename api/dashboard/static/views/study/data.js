// What a study's charts read from REST: everything once, then only what is new.

import { getJson } from "../../http.js";

const MOST_FAILED = 200;

/** The data of one study: {study, plots, points, failed}. */
export class StudyData {
  constructor(id) {
    this.id = id;
    this.points = [];
    this.failed = [];
  }

  /** Read what there is now. */
  async read() {
    const base = `/v1/studies/${this.id}`;
    const [study, plots, failed] = await Promise.all([
      getJson(base),
      getJson(`${base}/plots`),
      getJson(`${base}/trials?state=failed&limit=${MOST_FAILED}`),
    ]);
    this.study = study;
    this.plots = plots;
    this.points = plots.points;
    this.failed = failed.items;
  }
}
