// Hours by day, stacked.

import { stackChart } from "../charts/bars.js";
import { parameter } from "../charts/format.js";

const read = (text) => (text ? text.split(" ") : []);

export function mount(element) {
  const draw = () => {
    const { unit, days, num } = element.dataset;
    stackChart(element, {
      title: `${unit}-hours by day (UTC)`,
      height: 260,
      names: read(days).map((day) => day.slice(5)),
      y: { format: parameter },
      series: Array.from({ length: Number(num) }, (_, i) => ({
        name: element.getAttribute(`data-name-${i}`),
        values: read(element.getAttribute(`data-values-${i}`)).map(Number),
      })),
    });
  };
  element.addEventListener("xsam:changed", draw);
  draw();
}
