// The legend: which line, dash and mark is whose; a press hides or shows one.

import { html, svg } from "./dom.js";
import { visible } from "./format.js";
import { dashOf, mark } from "./tones.js";

/**
 * Fill a legend; entries of one chart: {key, name, tone, dash, isMarked, isFixed}.
 *
 * hidden: the keys that are not drawn, changed by a press; changed: called after one.
 */
export function legend(host, entries, hidden, changed) {
  if (
    host.childElementCount === entries.length &&
    entries.every((entry, i) => host.children[i].dataset.key === `${entry.key} ${entry.tone}`)
  )
    return;
  host.replaceChildren(
    ...entries.map((entry) =>
      entry.isFixed
        ? html(
            "span",
            { class: "chart-key", "data-key": `${entry.key} ${entry.tone}` },
            sample(entry),
            visible(entry.name),
          )
        : button(entry, hidden, changed),
    ),
  );
}

function button(entry, hidden, changed) {
  const pressed = () => String(!hidden.has(entry.key));
  const element = html(
    "button",
    {
      type: "button",
      class: "chart-key",
      "data-key": `${entry.key} ${entry.tone}`,
      "aria-pressed": pressed(),
      title: "show or hide",
      onclick: () => {
        if (!hidden.delete(entry.key)) hidden.add(entry.key);
        element.setAttribute("aria-pressed", pressed());
        changed();
      },
    },
    sample(entry),
    visible(entry.name),
  );
  return element;
}

/** Return the small picture of a line and its mark. */
export function sample({ tone, dash = dashOf(tone), isMarked = false, isLine = true, isCross = false, isUp = false }) {
  return svg(
    "svg",
    { width: isLine ? 24 : 12, height: 10, class: `chart-sample tone-${tone}`, "aria-hidden": "true" },
    isLine ? svg("path", { d: "M1 5h22", class: "stroke", "stroke-dasharray": dash }) : null,
    isMarked ? svg("path", { d: mark(tone, isLine ? 12 : 6, 5, 3), class: "fill" }) : null,
    isUp ? svg("path", { d: "M6 1l3.6 7h-7.2z", class: "fill" }) : null,
    isCross ? svg("path", { d: "M3 2l6 6M9 2l-6 6", class: "stroke" }) : null,
  );
}
