// The tooltip of a chart: follows the pointer, stays inside the chart, holds text only.

import { html } from "./dom.js";
import { visible } from "./format.js";
import { sample } from "./legend.js";

const MOST_ROWS = 10;

export class Tip {
  constructor(host) {
    this.host = host;
    this.element = html("div", { class: "chart-tip", hidden: true, "aria-hidden": "true" });
    host.append(this.element);
  }

  /** Show a title and rows {name, value, tone} beside a place in the host. */
  show(x, y, title, rows = []) {
    const shown = rows
      .slice(0, MOST_ROWS)
      .map(({ name, value, tone }) =>
        html(
          "div",
          { class: "chart-tip-row" },
          tone ? sample({ tone }) : null,
          html("span", {}, visible(name)),
          html("b", {}, visible(value)),
        ),
      );
    if (rows.length > MOST_ROWS)
      shown.push(html("div", { class: "chart-tip-row" }, `and ${rows.length - MOST_ROWS} more`));
    this.element.replaceChildren(html("div", { class: "chart-tip-title" }, visible(title)), ...shown);
    this.element.hidden = false;
    const [width, height] = [this.element.offsetWidth, this.element.offsetHeight];
    const left = x + 14 + width <= this.host.clientWidth ? x + 14 : Math.max(0, x - 14 - width);
    const top = Math.min(Math.max(y - height / 2, 0), Math.max(this.host.clientHeight - height, 0));
    this.element.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }

  hide() {
    this.element.hidden = true;
  }
}
