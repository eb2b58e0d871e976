// Ages and instants in the reader's own time. One timer for the whole page.

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"]];

export function lasting(seconds) {
  const left = Math.max(seconds, 0);
  const unit = UNITS.find(([size]) => left >= size);
  return unit ? `${Math.round(left / unit[0])} ${unit[1]}` : `${Math.floor(left)} s`;
}

function tick() {
  for (const element of document.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    if (element.title !== element.dataset.titled) {
      const utc = at.toISOString().replace("T", " ").slice(0, 19);
      element.title = element.dataset.titled = `${at.toLocaleString()} (${utc} UTC)`;
      if ("clock" in element.dataset) element.textContent = at.toLocaleTimeString();
    }
    if (!("ago" in element.dataset)) continue;
    const text = lasting((Date.now() - at) / 1000);
    if (element.textContent !== text) element.textContent = text;
  }
}

export function startTimes() {
  tick();
  setInterval(() => document.hidden || tick(), 1000);
}

export const retime = tick;
