// Single keys, outside of fields only; they can be switched off (WCAG 2.1.4).

const isOff = () => localStorage.getItem("xsam-keys") === "off";
const isField = (element) => element.closest("input:not([type=checkbox]), select, textarea, [contenteditable], dialog[open]") !== null;
const rows = () => [...document.querySelectorAll("[data-row]")];
let isGoing = false;

function move(step) {
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.contains(document.activeElement));
  const next = all[at < 0 ? 0 : Math.min(Math.max(at + step, 0), all.length - 1)];
  next.querySelector("a[href]")?.focus();
  next.scrollIntoView({ block: "nearest" });
}

const current = () => rows().find((row) => row.contains(document.activeElement));

function goTo(key) {
  document.querySelector(`a[data-goes="${CSS.escape(key)}"]`)?.click();
}

const ACTIONS = {
  "/": () => document.getElementById("search").focus(),
  "?": () => document.getElementById("help").showModal(),
  j: () => move(1),
  k: () => move(-1),
  x: () => current()?.querySelector("input[type=checkbox]")?.click(),
  "[": () => document.querySelector("a[rel=prev]")?.click(),
  "]": () => document.querySelector("a[rel=next]")?.click(),
  p: () => document.getElementById("light")?.click(),
};

export function startKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isField(event.target) || isOff()) return;
    if (isGoing) {
      isGoing = false;
      goTo(event.key);
      return;
    }
    if (event.key === "g") {
      isGoing = true;
      setTimeout(() => (isGoing = false), 1500);
      return;
    }
    const action = ACTIONS[event.key];
    if (action === undefined) return;
    event.preventDefault();
    action();
  });
  const help = document.getElementById("help");
  const toggle = help.querySelector("[data-keys]");
  toggle.checked = !isOff();
  toggle.addEventListener("change", () => localStorage.setItem("xsam-keys", toggle.checked ? "on" : "off"));
}
