// The list of jobs: rows stay true while one reads; many are changed at once.

import { refresh } from "../app.js";
import { confirmed } from "../confirm.js";
import { getPart, sendJson } from "../http.js";
import { morphChildren } from "../morph.js";
import { announce, hideStrip, showRefusal, showStrip } from "../strips.js";
import { retime } from "../times.js";

const PAUSE_MS = 150;
const ENDED = new Set(["succeeded", "failed", "cancelled"]);
const DONE = { cancel: "cancelled", pause: "paused", resume: "resumed", retry: "queued again" };
const UNDONE = { pause: "resume", resume: "pause" };

const rowOf = (id) => document.querySelector(`tr[data-job="${CSS.escape(id)}"]`);
const plural = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

export function mount(form) {
  liveRows(form);
  bulkActions(form);
}

function liveRows(form) {
  const waiting = new Set();
  let fresh = new Set();
  let timer = null;

  // Only rows that are shown change; new ones wait until somebody wants to see them.
  const read = async () => {
    timer = null;
    const ids = [...waiting].filter((id) => rowOf(id));
    waiting.clear();
    if (!ids.length || !form.isConnected) return;
    try {
      const url = `/jobs/rows?${new URLSearchParams(ids.map((id) => ["id", id]))}`;
      const { part } = await getPart(url, "rows");
      for (const next of part.querySelectorAll("tr[data-job]")) {
        const row = rowOf(next.dataset.job);
        if (row === null) continue;
        const isNew = row.dataset.state !== next.dataset.state;
        row.dataset.state = next.dataset.state;
        morphChildren(row, next);
        if (isNew) flash(row);
      }
      retime();
    } catch (error) {
      showRefusal(error, refresh);
    }
  };

  document.addEventListener("xsam:changes", ({ detail }) => {
    if (!form.isConnected) return;
    const ended = detail.filter(({ kind, events, state }) => kind === "training" && events.length && ENDED.has(state));
    if (ended.length) announce(`${plural(ended.length, "job")} ended`);
    for (const change of detail.filter(({ kind }) => kind === "training")) {
      const row = rowOf(change.job_id);
      if (row === null) {
        if (change.events.includes("submitted")) fresh.add(change.job_id);
      } else if (change.events.length || row.dataset.state !== change.state) waiting.add(change.job_id);
      else patch(row, change);
    }
    if (waiting.size) timer ??= setTimeout(read, PAUSE_MS);
    if (fresh.size) showStrip("fresh", `${plural(fresh.size, "new job")}.`, { action: () => refresh(), label: "Show", kind: "note" });
  });
  document.addEventListener("xsam:reload", () => form.isConnected && refresh());
  document.addEventListener("xsam:shown", () => {
    fresh = new Set();
    hideStrip("fresh");
  });
}

function patch(row, { epochs_done: done, num_epochs: all, loss }) {
  const bar = row.querySelector("progress");
  if (bar === null) return;
  bar.value = done;
  bar.max = all;
  row.querySelector(".progress .number").textContent = `${done}/${all}`;
  const shown = row.querySelector("[data-field=loss]");
  if (shown !== null && loss !== null) shown.textContent = loss.toFixed(3);
}

function flash(row) {
  row.classList.remove("flash");
  requestAnimationFrame(() => row.classList.add("flash"));
}

function bulkActions(form) {
  const boxes = () => [...form.querySelectorAll("input[data-selects]")];
  const picked = () => boxes().filter(({ checked }) => checked);
  const matching = () => form.querySelector("[data-matching]");

  const show = () => {
    const bar = form.querySelector("#bulk");
    if (bar === null) return; // an empty list
    const number = picked().length;
    bar.querySelector("[data-number]").textContent = matching()?.checked ? "All that match" : `${number} selected`;
    for (const button of bar.querySelectorAll("button, a")) button.disabled = number === 0 && !matching()?.checked;
    bar.classList.toggle("is-active", number > 0 || Boolean(matching()?.checked));
    const all = form.querySelector("[data-all]");
    if (all !== null) {
      all.checked = number > 0 && number === boxes().length;
      all.indeterminate = number > 0 && number < boxes().length;
    }
  };

  form.addEventListener("change", (event) => {
    if (event.target.matches("[data-all]")) for (const box of boxes()) box.checked = event.target.checked;
    show();
  });
  document.addEventListener("xsam:shown", () => form.isConnected && show());

  form.addEventListener("submit", async (event) => {
    const verb = event.submitter?.value;
    const bar = form.querySelector("#bulk");
    if (event.submitter?.name !== "verb") return;
    event.preventDefault();
    if (verb === "compare") {
      const ids = picked().map(({ value }) => value).slice(0, 12);
      location.assign(`/jobs/compare?${new URLSearchParams(ids.map((id) => ["id", id]))}`);
      return;
    }
    const change = wantedChange(bar, verb);
    if (change === null) return;
    const selection = matching()?.checked ? { where: JSON.parse(bar.dataset.where) } : { ids: picked().map(({ value }) => value) };
    const would = await counted(verb, selection, change);
    if (would === null) return;
    const yes = { number: would.num, title: "Cancel jobs?", yes: "Cancel the jobs" };
    if (verb === "cancel" && !(await confirmed(told(would), yes))) return;
    await act(verb, selection, change, would.num);
    show();
  });
  show();
}

function wantedChange(bar, verb) {
  if (verb !== "update") return undefined;
  const [priority, label] = ["priority", "label"].map((name) => bar.querySelector(`[name=${name}]`).value.trim());
  const [key, ...rest] = label.split("=");
  if (!priority && !label) return null;
  return { ...(priority && { priority: Number(priority) }), ...(label && { labels: { [key]: rest.length ? rest.join("=") : null } }) };
}

// What a verb would be tried on; null where that is refused.
async function counted(verb, selection, change) {
  try {
    const body = { ...selection, dry_run: true, ...(change && { change }) };
    return (await sendJson("POST", `/v1/jobs:${verb}`, body)).would;
  } catch (error) {
    showRefusal(error);
    return null;
  }
}

// What will happen, in numbers.
function told({ num, num_by_state: states, num_by_user: users }) {
  const me = document.getElementById("bulk").dataset.user;
  const parts = Object.entries(states).map(([state, all]) => `${all} ${state}`).join(", ");
  const others = Object.entries(users).filter(([user]) => user !== me).map(([user, all]) => `${all} of ${user}`).join(", ");
  return `Cancel ${plural(num, "job")}: ${parts}${others ? `; ${others}` : ""}. Checkpoints stay.`;
}

async function act(verb, selection, change, number) {
  const bar = document.getElementById("bulk");
  const progress = bar.querySelector("progress");
  let refused = [];
  const done = [];
  try {
    for (let isMore = true; isMore; ) {
      progress.hidden = number <= 20;
      const body = change === undefined ? selection : { ...selection, change };
      const { items, has_more: more } = await sendJson("POST", `/v1/jobs:${verb}`, body);
      refused = [...refused, ...items.filter(({ is_done: ok }) => !ok)];
      done.push(...items.filter(({ is_done: ok }) => ok).map(({ job_id: id }) => id));
      progress.max = Math.max(number, done.length + refused.length);
      progress.value = done.length + refused.length;
      isMore = more && items.some(({ is_done: ok }) => ok);
    }
  } catch (error) {
    showRefusal(error);
  }
  progress.hidden = true;
  for (const box of document.querySelectorAll("input[data-selects]")) box.checked = refused.some(({ job_id: id }) => id === box.value);
  const words = `${plural(done.length, "job")} ${DONE[verb] ?? "changed"}`;
  announce(words);
  const undo = UNDONE[verb];
  const why = refused.length ? `; ${refused.length} refused: ${refused[0].message}` : "";
  if (done.length || refused.length) {
    const options = undo && done.length ? { action: () => act(undo, { ids: done.slice(0, 1000) }, undefined, done.length), label: "Undo" } : {};
    showStrip("done", `${words}${why}.`, { ...options, kind: refused.length ? "warning" : "note" });
  }
  await refresh();
}
