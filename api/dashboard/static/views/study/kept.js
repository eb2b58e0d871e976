// The trials that the selection keeps, best first, as a table whose rows select too.

import { html } from "../../charts/dom.js";
import { duration, evaluations, parameter, visible } from "../../charts/format.js";
import { armTone } from "../../charts/tones.js";
import { sample } from "../../charts/legend.js";

/** Return the table of trials; format: of the value, picked(number): called when a row is selected. */
export function keptTable(trials, axes, { format, metric, selected, picked, isAll }) {
  if (!trials.length)
    return html("p", { class: "empty" }, isAll ? "No trial has ended yet." : "No trial is inside of what is selected.");
  const column = (label, isNumber = true) => html("th", { scope: "col", class: isNumber ? "number" : null }, label);
  const head = html(
    "tr",
    {},
    column("Trial"),
    column("Arm", false),
    column(metric),
    ...axes.map(({ label }) => column(label)),
    column("Cost"),
    column("Time"),
  );
  const rows = trials.map((trial) => row(trial, axes, { format, selected, picked }));
  return html("table", { class: "list kept" }, html("thead", {}, head), html("tbody", {}, ...rows));
}

function row(trial, axes, { format, selected, picked }) {
  const number = (text) => html("td", { class: "number" }, visible(text));
  const pick = html(
    "button",
    {
      type: "button",
      class: "link",
      "aria-pressed": String(trial.number === selected),
      title: "mark this trial on every chart",
      onclick: () => picked(trial.number === selected ? null : trial.number),
    },
    String(trial.number),
  );
  return html(
    "tr",
    { class: trial.number === selected ? "own" : null, "data-number": trial.number },
    html("th", { scope: "row", class: "number" }, pick),
    html(
      "td",
      { class: "in" },
      sample({ tone: armTone(trial.arm), isMarked: true, isLine: false }),
      " ",
      visible(trial.arm),
      trial.phase === "confirm" ? html("span", { class: "quiet" }, " confirmation") : null,
    ),
    number(trial.score === null ? "failed" : format(trial.score)),
    ...axes.map(({ key }) => number(parameter(trial.params[key]))),
    number(evaluations(trial.cost)),
    number(duration(trial.seconds)),
  );
}
