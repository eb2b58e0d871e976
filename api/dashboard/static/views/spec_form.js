// The forms for jobs and studies: what a change would take, other fields for another kind, and nothing lost on the way.
// The form itself is made and read by the service, so that it works without this, too.

import { getPart } from "../http.js";
import { morphChildren } from "../morph.js";
import { hideStrip, showRefusal } from "../strips.js";

const QUIET_MS = 400;

export function mount(form) {
  const kept = `xsam-form ${location.pathname}`;
  const path = form.getAttribute("action"); // form.action is a button of that name
  let timer = null;
  let latest = 0;

  const asked = async (part, action) => {
    const mine = (latest += 1);
    const body = new URLSearchParams(new FormData(form));
    body.set("action", action);
    sessionStorage.setItem(kept, body.toString());
    const into = document.getElementById(part);
    into.setAttribute("aria-busy", "true");
    try {
      const answer = await getPart(path, part, { method: "POST", body });
      if (mine !== latest) return;
      morphChildren(into, answer.part);
      hideStrip("refused");
    } catch (error) {
      showRefusal(error, () => asked(part, action));
    } finally {
      into.removeAttribute("aria-busy");
    }
  };
  const again = async (action) => {
    await asked("inputs", action);
    await asked("preview", "refresh");
  };

  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => asked("preview", "refresh"), QUIET_MS);
  });
  form.addEventListener("change", ({ target }) => {
    if (!target.hasAttribute("data-changes")) return;
    clearTimeout(timer);
    again("refresh");
  });
  form.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-again]");
    if (!button) return;
    event.preventDefault();
    again(button.value);
  });
  // Who is signed out learns it when it is sent, and has it back after signing in.
  form.addEventListener("submit", () => sessionStorage.setItem(kept, new URLSearchParams(new FormData(form)).toString()));
  restore(form, kept, again);
  // Typed before this was loaded, or filled in by the browser.
  const isTyped = ({ type, value, defaultValue }) => type === "text" && value !== defaultValue;
  if ([...form.elements].some(isTyped)) asked("preview", "refresh");
}

// Who had to sign in on the way finds what they had typed.
function restore(form, kept, again) {
  const text = sessionStorage.getItem(kept);
  sessionStorage.removeItem(kept);
  if (!text || !document.referrer.includes("/sign-in")) return;
  for (const [name, value] of new URLSearchParams(text)) {
    const field = form.elements.namedItem(name);
    if (["form_token", "action", "key"].includes(name) || !field) continue;
    if (field instanceof RadioNodeList) field[field.length - 1].checked = value === "true";
    else field.value = value;
  }
  again("refresh");
}
