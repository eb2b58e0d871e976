// What changes, for this tab: from the worker that all tabs share, or by asking where there is none.

import { assetUrl, getJson } from "./http.js";
import { hideStrip, showStrip } from "./strips.js";

const ASK_EVERY_MS = 3000;
const BEHIND_AFTER_S = 10;
const light = document.getElementById("light");
let port = null;
let state = "reconnecting";
let since = Date.now();
let isPaused = false;
let isStale = false;
let wasLive = false;
let wasLost = false;

function shine() {
  const lostS = Math.floor((Date.now() - since) / 1000);
  let text = state;
  if (isPaused) text = "paused";
  else if (state === "reconnecting" && lostS >= BEHIND_AFTER_S) text = `behind ${lostS} s`;
  else if (state === "signed-out") text = "signed out";
  const kind = isPaused ? "paused" : state;
  if (light.dataset.state === kind && light.lastElementChild.textContent === text) return;
  light.dataset.state = kind;
  light.lastElementChild.textContent = text;
}

const reread = () => document.dispatchEvent(new CustomEvent("xsam:reload"));

async function checkRelease() {
  const response = await fetch(new URL("icon.svg", import.meta.url), { method: "GET", cache: "no-store" });
  if (response.status === 404) showStrip("release", "A new version runs.", { action: () => location.reload(), label: "Reload", kind: "note" });
}

function become(next, at) {
  const isBack = next === "live" && wasLost;
  state = next;
  since = at;
  wasLive = wasLive || next === "live";
  wasLost = wasLost || (wasLive && next !== "live");
  if (next === "signed-out") {
    const here = encodeURIComponent(location.pathname + location.search);
    showStrip("signed-out", "Signed out. What you filled in is kept.", { action: `/sign-in?next=${here}`, label: "Sign in" });
  } else if (next === "live") hideStrip("signed-out");
  if (isBack) {
    wasLost = false;
    checkRelease();
    if (!isPaused) reread();
  }
  shine();
}

function receive({ kind, items }) {
  if (document.hidden || isPaused) {
    isStale = true;
    return;
  }
  if (kind === "reload") reread();
  else document.dispatchEvent(new CustomEvent("xsam:changes", { detail: items }));
}

function catchUp() {
  if (document.hidden || isPaused || !isStale) return;
  isStale = false;
  reread();
}

function listen() {
  const worker = new SharedWorker(assetUrl("live.js"));
  port = worker.port;
  port.addEventListener("message", ({ data }) => {
    if (data.kind === "state") become(data.state, data.since);
    else receive(data);
  });
  port.start();
}

// Where there are no shared workers, only a tab that is looked at asks.
function ask() {
  let cursor = null;
  const look = async () => {
    if (!document.hidden) {
      try {
        const answer = await getJson(cursor === null ? "/v1/changes" : `/v1/changes?after=${cursor}`);
        cursor = answer.cursor;
        if (state !== "live") become("live", Date.now());
        if (answer.reload || answer.items.length) receive({ kind: answer.reload ? "reload" : "changes", items: answer.items });
      } catch (error) {
        become(error.status === 401 ? "signed-out" : "reconnecting", state === "live" ? Date.now() : since);
      }
    }
    setTimeout(look, ASK_EVERY_MS);
  };
  look();
}

export function startStream() {
  const begin = () => (typeof SharedWorker === "undefined" ? ask() : listen());
  begin();
  addEventListener("pagehide", () => port?.postMessage("bye"));
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    if (port !== null) listen();
    reread();
  });
  addEventListener("online", () => port?.postMessage("now"));
  document.addEventListener("visibilitychange", catchUp);
  light.addEventListener("click", () => {
    isPaused = !isPaused;
    light.setAttribute("aria-pressed", String(isPaused));
    shine();
    catchUp();
  });
  setInterval(shine, 1000);
}
