// One job: its head stays true; the part that is open hears of progress.

import { isBusy, refresh } from "../app.js";
import { announce } from "../strips.js";

const PAUSE_MS = 300;

export function mount(marker) {
  const job = marker.dataset.job;
  let timer = null;
  const later = () => {
    timer ??= setTimeout(async () => {
      timer = null;
      if (!marker.isConnected || isBusy()) return;
      await refresh();
    }, PAUSE_MS);
  };
  document.addEventListener("xsam:changes", ({ detail }) => {
    const change = detail.find(({ job_id: id }) => id === job);
    if (change === undefined || !marker.isConnected) return;
    const epochs = document.querySelector("[data-field=epochs]");
    if (epochs !== null) epochs.textContent = `${change.epochs_done}/${change.num_epochs} epochs`;
    document.dispatchEvent(new CustomEvent("xsam:progress", { detail: change }));
    if (!change.events.length) return;
    announce(`The job is ${change.state}`);
    later();
  });
  document.addEventListener("xsam:reload", () => {
    document.dispatchEvent(new CustomEvent("xsam:progress", { detail: null }));
    later();
  });
}
