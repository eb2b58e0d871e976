// What every part of a study's page has: dialogs, and facts, verdict and trials that stay true.

import { getPart } from "../http.js";
import { morphChildren } from "../morph.js";
import { showRefusal } from "../strips.js";
import { retime } from "../times.js";

const LOOK_EVERY_MS = 1000;
const PARTS = ["facts", "verdict", "trials", "rungs"];

export function mount(element) {
  document.addEventListener("click", dialogs);
  for (const dialog of document.querySelectorAll("dialog[open]")) {
    dialog.close();
    dialog.showModal();
  }
  keepTrue(PARTS, ({ job_id: id, study_id: study }) => id === element.dataset.study || study === element.dataset.study);
}

/** Read parts of the page again, at most once a second, when a change concerns them. */
export function keepTrue(names, concerns) {
  let timer = null;
  const look = async () => {
    try {
      await refreshParts(names);
    } catch (error) {
      showRefusal(error);
    }
    timer = null;
  };
  const later = () => (timer ??= setTimeout(look, LOOK_EVERY_MS));
  document.addEventListener("xsam:changes", ({ detail }) => detail.some(concerns) && later());
  document.addEventListener("xsam:reload", later);
}

async function refreshParts(names) {
  for (const name of names) {
    const into = document.getElementById(name);
    if (into) morphChildren(into, (await getPart(location.href, name)).part);
  }
  retime();
}

function dialogs(event) {
  if (event.target.closest("a[data-opens]")) event.preventDefault();
  const closer = event.target.closest("[data-closes]");
  if (!closer) return;
  event.preventDefault();
  document.getElementById(closer.dataset.closes).close();
}
