// What all charts have around them: title, tools, legend, tooltip, "as table", a summary in words, redraw on resize.

import { html, svg } from "./dom.js";
import { legend } from "./legend.js";
import { table } from "./table.js";
import { Tip } from "./tip.js";

const EMPTY_HEIGHT = 130;
const frames = new WeakMap();

/**
 * Draw a chart into a host element, or draw it again with new options; what a reader has chosen (table, hidden series) stays.
 *
 * kind: {draw(frame), summary(options), table(options), legend(options, hidden), hover(frame, x, y), walk(frame, key)};
 * only draw and summary are needed. options: {title, height, empty, isEmpty} and what the kind takes.
 */
export function chart(host, kind, options) {
  let frame = frames.get(host);
  if (!frame) frames.set(host, (frame = new Frame(host, kind)));
  frame.update(options);
  return frame;
}

class Frame {
  constructor(host, kind) {
    this.host = host;
    this.kind = kind;
    this.hidden = new Set();
    this.width = 0;
    this.build();
    new ResizeObserver(() => this.resized()).observe(this.body);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    document.addEventListener("xsam:theme", () => this.draw());
  }

  build() {
    this.title = html("span", { class: "chart-title" });
    this.note = html("span", { class: "chart-note" });
    this.tools = html("span", { class: "chart-tools" });
    this.legend = html("div", { class: "chart-legend" });
    this.body = html("div", { class: "chart-body" });
    this.under = html("div", { class: "chart-under" });
    this.sheet = html("div", { class: "chart-table", hidden: true });
    this.said = html("p", { class: "chart-said", role: "status" });
    this.svg = svg("svg", { role: "img", class: "chart-svg" });
    this.tip = new Tip(this.body);
    this.body.append(this.svg);
    if (this.kind.table)
      this.tools.append(
        (this.switch = html(
          "button",
          {
            type: "button",
            class: "chart-switch",
            "aria-pressed": "false",
            onclick: () => this.showTable(this.sheet.hidden),
          },
          "as table",
        )),
      );
    this.host.classList.add("chart");
    this.host.replaceChildren(
      html("figcaption", { class: "chart-head" }, this.title, this.note, this.tools),
      this.legend,
      this.body,
      this.under,
      this.sheet,
      this.said,
    );
    this.listen();
  }

  listen() {
    if (this.kind.hover) {
      this.body.addEventListener("pointermove", (event) => this.hovered(event));
      this.body.addEventListener("pointerleave", () => this.left());
    }
    if (this.kind.walk) {
      this.body.tabIndex = 0;
      this.body.setAttribute("role", "group");
      this.body.addEventListener("keydown", (event) => {
        if (this.options.isEmpty || event.ctrlKey || event.metaKey || event.altKey) return;
        const said = this.kind.walk(this, event.key);
        if (said === undefined) return;
        event.preventDefault();
        this.say(said);
      });
      this.body.addEventListener("blur", () => this.left());
    }
    if (this.kind.click)
      this.body.addEventListener("click", (event) => this.kind.click(this, ...this.place(event), event));
  }

  place(event) {
    const box = this.body.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  hovered(event) {
    if (!this.options.isEmpty) this.kind.hover(this, ...this.place(event), event);
  }

  left() {
    this.tip.hide();
    this.kind.leave?.(this);
  }

  /** Say something to readers who do not see the chart. */
  say(text) {
    if (text) this.said.textContent = text;
  }

  update(options) {
    this.options = options;
    this.height = options.isEmpty ? EMPTY_HEIGHT : (options.height ?? 220);
    this.title.textContent = options.title ?? "";
    this.note.textContent = options.note ?? "";
    this.draw();
    if (!this.sheet.hidden) this.fillTable();
  }

  resized() {
    if (Math.abs(this.body.clientWidth - this.width) >= 1) this.draw();
  }

  /** Redraw all of it. */
  draw() {
    if (!this.options) return;
    this.width = this.body.clientWidth;
    if (this.width < 40) return;
    if (this.options.isEmpty) return this.drawEmpty();
    this.host.classList.remove("is-empty");
    const said = this.kind.summary(this.options);
    this.svg.setAttribute("width", this.width);
    this.svg.setAttribute("height", this.height);
    this.svg.setAttribute("aria-label", `${this.options.title ?? "chart"}: ${said}`);
    if (this.kind.walk) this.body.setAttribute("aria-label", `${this.options.title}, walk with the arrow keys`);
    legend(this.legend, this.kind.legend?.(this.options, this.hidden) ?? [], this.hidden, () => this.draw());
    this.kind.draw(this);
  }

  drawEmpty() {
    this.host.classList.add("is-empty");
    this.legend.replaceChildren();
    this.under.replaceChildren();
    this.kind.clear?.(this);
    const text = this.options.empty ?? "Nothing to draw yet.";
    this.svg.setAttribute("width", this.width);
    this.svg.setAttribute("height", this.height);
    this.svg.setAttribute("aria-label", `${this.options.title ?? "chart"}: ${text}`);
    this.svg.replaceChildren(
      ...lines(text, this.width).map((line, i, all) =>
        svg(
          "text",
          { x: this.width / 2, y: this.height / 2 + (i - (all.length - 1) / 2) * 17, class: "chart-empty" },
          line,
        ),
      ),
    );
  }

  showTable(isShown) {
    this.sheet.hidden = !isShown;
    this.body.hidden = this.legend.hidden = this.under.hidden = isShown;
    this.switch.setAttribute("aria-pressed", String(isShown));
    if (isShown) this.fillTable();
    else this.draw();
  }

  fillTable() {
    this.sheet.replaceChildren(
      this.options.isEmpty
        ? html("p", { class: "chart-note" }, this.options.empty ?? "Nothing yet.")
        : table(this.options.title, this.kind.table(this.options)),
    );
  }
}

function lines(text, width) {
  const most = Math.max(Math.floor(width / 7.5), 12);
  const found = [""];
  for (const word of text.split(" ")) {
    if (found.at(-1) && found.at(-1).length + word.length + 1 > most) found.push(word);
    else found[found.length - 1] += `${found.at(-1) ? " " : ""}${word}`;
  }
  return found;
}
