// Starts everything that a page needs: moves within a view without a reload, modules, menus, keys, times.

import { startConfirms } from "./confirm.js";
import { getPart } from "./http.js";
import { startKeys } from "./keys.js";
import { morphChildren } from "./morph.js";
import { startStream } from "./stream.js";
import { hideStrip, showRefusal } from "./strips.js";
import { retime, startTimes } from "./times.js";

const DIMMED_AFTER_MS = 150;
const main = document.getElementById("main");
const mounted = new WeakSet();
let pending = null;

// An element with data-module="views/jobs" is given to that module's `mount`, once.
async function mountModules() {
  for (const element of document.querySelectorAll("[data-module]")) {
    if (mounted.has(element)) continue;
    mounted.add(element);
    const module = await import(`./${element.dataset.module}.js`);
    module.mount(element);
  }
}

// On a phone a row is a card, where each value says what it is.
function labelCells() {
  for (const table of document.querySelectorAll("table.list")) {
    const names = [...table.querySelectorAll("thead th")].map((cell) => (cell.querySelector(".unseen") ? "" : cell.textContent.trim()));
    for (const row of table.tBodies[0]?.rows ?? []) {
      [...row.cells].forEach((cell, i) => names[i] && cell.dataset.label === undefined && (cell.dataset.label = names[i]));
    }
  }
}

function withoutEmpty(url) {
  const kept = [...url.searchParams].filter(([, value]) => value !== "");
  url.search = new URLSearchParams(kept).toString();
  return url;
}

// Shows the part of a page that an address stands for, and keeps the old one until it is there.
export async function show(url, { part = "main", into = main, push = false, replace = false } = {}) {
  pending?.abort();
  const request = (pending = new AbortController());
  const dims = setTimeout(() => into.setAttribute("aria-busy", "true"), DIMMED_AFTER_MS);
  try {
    const answer = await getPart(url, part, { signal: request.signal });
    if (push) history.pushState(null, "", answer.url);
    if (replace) history.replaceState(null, "", answer.url);
    if (answer.title) document.title = answer.title;
    morphChildren(into, answer.part);
    hideStrip("refused");
    retime();
    labelCells();
    await mountModules();
    document.dispatchEvent(new CustomEvent("xsam:shown", { detail: { part } }));
    return true;
  } catch (error) {
    showRefusal(error, () => show(url, { part, into, push, replace }));
    return false;
  } finally {
    clearTimeout(dims);
    into.removeAttribute("aria-busy");
    if (pending === request) pending = null;
  }
}

export const isBusy = () => pending !== null;

// Reads the present view again.
export const refresh = (part = "main", into = main) => show(location.href, { part, into });

function startMoves() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-soft]");
    if (link === null || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    show(link.href, { push: true });
  });
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("form[data-soft]")) return;
    event.preventDefault();
    const url = new URL(form.action);
    url.search = new URLSearchParams(new FormData(form, event.submitter)).toString();
    show(withoutEmpty(url).href, { push: true });
  });
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-soft][data-at-once]");
    if (form !== null && event.target.form === form) form.requestSubmit();
  });
  let at = location.pathname;
  addEventListener("popstate", () => {
    if (location.pathname === at) show(location.href);
    else location.reload();
    at = location.pathname;
  });
}

function startMenus() {
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
    const opens = event.target.closest("[data-opens]");
    if (opens !== null) document.getElementById(opens.dataset.opens).showModal();
    const copies = event.target.closest("[data-copies]");
    if (copies !== null) copy(copies);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const menu = event.target.closest("details.menu[open]");
    if (menu === null) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copies);
  const text = source.value ?? source.textContent;
  try {
    await navigator.clipboard.writeText(text.trim());
    button.textContent = "Copied";
  } catch {
    // Not allowed on plain http: select it, so that the keys of the system copy.
    getSelection().selectAllChildren(source);
    button.textContent = "Selected";
  }
}

function startTheme() {
  const select = document.getElementById("theme");
  select.value = document.documentElement.dataset.theme || "system";
  select.addEventListener("change", () => {
    if (select.value === "system") {
      delete document.documentElement.dataset.theme;
      localStorage.removeItem("xsam-theme");
    } else {
      document.documentElement.dataset.theme = select.value;
      localStorage.setItem("xsam-theme", select.value);
    }
    document.dispatchEvent(new CustomEvent("xsam:theme"));
  });
}

startMoves();
startMenus();
startConfirms();
startTheme();
startTimes();
labelCells();
startKeys();
if (document.getElementById("light") !== null) startStream();
mountModules();
