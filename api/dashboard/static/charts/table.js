// A chart's numbers as a table, for readers who do not see it and for those who want to copy.

import { html } from "./dom.js";
import { visible } from "./format.js";

const MOST_ROWS = 500;

/** Return a table; sheet: {columns: [{label, isText}], rows: [[cell, ...], ...]}, cells already as text. */
export function table(title, { columns, rows }) {
  const head = html(
    "tr",
    {},
    ...columns.map(({ label, isText }) => html("th", { scope: "col", class: isText ? null : "num" }, label)),
  );
  const body = rows
    .slice(0, MOST_ROWS)
    .map((row) =>
      html("tr", {}, ...row.map((cell, i) => html("td", { class: columns[i].isText ? null : "num" }, visible(cell)))),
    );
  const scroller = html(
    "div",
    { class: "chart-sheet", tabindex: "0", role: "region", "aria-label": `${title} as table` },
    html("table", {}, html("thead", {}, head), html("tbody", {}, ...body)),
  );
  if (rows.length <= MOST_ROWS) return scroller;
  const note = html(
    "p",
    { class: "chart-note" },
    `The first ${MOST_ROWS} of ${rows.length.toLocaleString("en-US")} rows.`,
  );
  return html("div", {}, scroller, note);
}
