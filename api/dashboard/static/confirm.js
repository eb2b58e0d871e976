// Asks before something is done that cannot be undone.

const TYPED_ABOVE = 20;

// Resolves to whether the reader goes on; above 20 things the number is typed.
export function confirmed(sentence, { number = 0, title = "Are you sure?", yes = "Go on" } = {}) {
  const dialog = document.getElementById("confirm");
  const go = dialog.querySelector("[data-yes]");
  const typed = dialog.querySelector("[data-typed]");
  const input = typed.querySelector("input");
  dialog.querySelector("h2").textContent = title;
  dialog.querySelector("[data-sentence]").textContent = sentence;
  go.textContent = yes;
  typed.hidden = number <= TYPED_ABOVE;
  typed.querySelector("span").textContent = `Type ${number} to go on`;
  input.value = "";
  const check = () => (go.disabled = !typed.hidden && input.value.trim() !== String(number));
  input.oninput = check;
  check();
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

export function startConfirms() {
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.dataset.confirm || "sure" in form.dataset) return;
    event.preventDefault();
    const button = event.submitter;
    if (!(await confirmed(form.dataset.confirm, { title: button.textContent.replace("…", "?"), yes: button.textContent.replace("…", "") }))) return;
    form.dataset.sure = "";
    form.requestSubmit(button);
  });
}
