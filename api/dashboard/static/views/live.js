// A view that is read again when something of what it shows has changed: after events, or at every report.

import { isBusy, refresh } from "../app.js";

const PAUSE_MS = 1000;

export function mount(marker) {
  let timer = null;
  const later = () => {
    timer ??= setTimeout(async () => {
      timer = null;
      if (marker.isConnected && !isBusy()) await refresh();
    }, PAUSE_MS);
  };
  document.addEventListener("xsam:changes", ({ detail }) => {
    if (marker.dataset.on !== "events" || detail.some(({ events }) => events.length)) later();
  });
  document.addEventListener("xsam:reload", later);
}
