// A study's charts: one selection for all of them, its state in the address, kept true while trials end.

import { announce, showRefusal } from "../strips.js";
import { Selection } from "../charts/selection.js";
import { html } from "../charts/dom.js";
import { Panels } from "./study/panels.js";
import { StudyData } from "./study/data.js";
import { readView, toggled, writeView } from "./study/view.js";

const LOOK_EVERY_MS = 1000;

export function mount(element) {
  const shown = new LiveStudy(element);
  shown.start();
}

class LiveStudy {
  constructor(element) {
    this.element = element;
    this.data = new StudyData(element.dataset.study);
    this.view = readView(location.search);
    this.selection = new Selection();
    this.selection.fromBrushes(this.view.brush);
    this.selection.trial = Number(this.view.trial) || null;
    this.panels = new Panels(element, this.selection, {
      ordered: (keys) => this.change({ order: keys }),
      toggled: (key, how) => this.change({ [how]: toggled(this.view[how], key) }),
    });
  }

  async start() {
    this.listen();
    if (await this.read()) this.fillChoices();
    this.draw();
  }

  listen() {
    this.selection.addEventListener("change", ({ detail }) => this.selected(detail.isFinal));
    this.element.addEventListener("change", ({ target }) => {
      if (target.dataset.view) this.change({ [target.dataset.view]: target.value });
    });
    addEventListener("popstate", () => {
      this.view = readView(location.search);
      this.selection.fromBrushes(this.view.brush);
      this.draw();
    });
    document.addEventListener("xsam:changes", ({ detail }) => {
      if (detail.some(({ job_id: id, study_id: study }) => id === this.data.id || study === this.data.id)) this.later();
    });
    document.addEventListener("xsam:reload", () => this.later());
  }

  async read() {
    try {
      this.data.chooseCurves(this.view.arm, this.view.phase);
      await this.data.read();
      return true;
    } catch (error) {
      showRefusal(error, () => this.refresh());
      return false;
    }
  }

  fillChoices() {
    const { axes } = this.data.plots;
    const names = axes.map(({ path }) => path);
    const { across, down } = this.data.plots.map ?? {};
    for (const [name, usual] of [
      ["across", across],
      ["down", down],
    ]) {
      const select = this.element.querySelector(`[data-view="${name}"]`);
      select.replaceChildren(...names.map((path) => html("option", { value: path }, path)));
      select.value = names.includes(this.view[name]) ? this.view[name] : (usual ?? names[0]);
    }
    for (const select of this.element.querySelectorAll("[data-view]"))
      if (this.view[select.dataset.view]) select.value = this.view[select.dataset.view];
    this.fillArms();
  }

  fillArms() {
    const host = this.element.querySelector('[data-fills="arms"]');
    const arms = this.data.study.arms.map(({ arm }) => arm);
    if (arms.length < 2 || host.childElementCount === arms.length) return;
    host.replaceChildren(
      ...arms.map((arm) => {
        const box = html("input", {
          type: "checkbox",
          value: arm,
          onchange: () => this.change({ arm: this.checkedArms(host, arms) }),
        });
        box.checked = !this.view.arm.length || this.view.arm.includes(arm);
        return html("label", { class: "check" }, box, arm);
      }),
    );
  }

  checkedArms(host, arms) {
    const checked = [...host.querySelectorAll("input:checked")].map(({ value }) => value);
    return checked.length === arms.length ? [] : checked;
  }

  change(changes) {
    Object.assign(this.view, changes);
    this.write();
    this.draw();
    if ("arm" in changes || "phase" in changes) this.refresh();
  }

  write() {
    this.view.brush = this.selection.toBrushes();
    this.view.trial = this.selection.trial === null ? "" : String(this.selection.trial);
    history.replaceState(null, "", writeView(location.href, this.view));
  }

  selected(isFinal) {
    this.panels.reselect(isFinal);
    if (isFinal) this.write();
  }

  draw() {
    if (this.data.study) this.panels.draw(this.data, this.view);
  }

  /** Something has changed: look again, at most once a second. */
  later() {
    if (this.timer) return;
    const since = performance.now() - (this.lookedAt ?? -Infinity);
    this.timer = setTimeout(() => this.refresh(), Math.max(LOOK_EVERY_MS - since, 0));
  }

  async refresh() {
    this.lookedAt = performance.now();
    const before = this.data.points.length;
    if (await this.read()) {
      this.fillArms();
      this.draw();
    }
    this.timer = null;
    const num = this.data.points.length - before;
    if (num > 0) announce(`${num} ${num === 1 ? "trial has" : "trials have"} ended`);
  }
}
