// The strip below the bar, and the one polite voice for those who do not see the page.

const strips = () => document.getElementById("strips");

export function showStrip(name, sentence, { action = null, label = "retry", kind = "warning" } = {}) {
  hideStrip(name);
  const strip = document.createElement("p");
  strip.className = `strip strip-${kind}`;
  strip.id = `strip-${name}`;
  strip.append(sentence);
  if (action !== null) {
    const control = document.createElement(typeof action === "string" ? "a" : "button");
    control.textContent = label;
    if (typeof action === "string") control.href = action;
    else control.addEventListener("click", action);
    strip.append(" ", control);
  }
  strips().append(strip);
}

export const hideStrip = (name) => document.getElementById(`strip-${name}`)?.remove();

export function announce(sentence) {
  document.getElementById("announcer").textContent = sentence;
}

// What a request was refused with, in words; the old content stays.
export function showRefusal(error, retry = null) {
  if (error.name === "AbortError") return;
  if (error.status === 401) {
    const here = encodeURIComponent(location.pathname + location.search);
    showStrip("signed-out", "Signed out. What you filled in is kept.", { action: `/sign-in?next=${here}`, label: "Sign in" });
    return;
  }
  const id = error.requestId ? ` (request ${error.requestId})` : "";
  const code = error.code && error.code !== "unreachable" ? ` [${error.code}]` : "";
  showStrip("refused", `${error.message}${code}${id}`, { action: retry, kind: "error" });
  if (!("status" in error)) throw error;
}
