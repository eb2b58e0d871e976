// The state of a study's charts, all of it in the address: read once, written back without a new entry in the history.

const LISTS = ["arm", "log", "flip", "order", "brush"];
const WORDS = { x: "evals", across: "", down: "", stat: "best", color: "arm", phase: "", top: "20", trial: "" };

/** Return the state that an address holds. */
export function readView(search) {
  const given = new URLSearchParams(search);
  const lists = LISTS.map((name) => [name, given.getAll(name)]);
  return {
    ...Object.fromEntries(lists),
    ...Object.fromEntries(Object.entries(WORDS).map(([name, usual]) => [name, given.get(name) ?? usual])),
  };
}

/** Return the address with this state; what is usual is left out. */
export function writeView(href, view) {
  const url = new URL(href);
  for (const name of LISTS) {
    url.searchParams.delete(name);
    for (const value of view[name]) url.searchParams.append(name, value);
  }
  for (const [name, usual] of Object.entries(WORDS)) {
    url.searchParams.delete(name);
    if (view[name] !== usual && view[name] !== null) url.searchParams.set(name, view[name]);
  }
  return url.href;
}

/** Return a list with an item added, or without it where it was there. */
export function toggled(list, item) {
  return list.includes(item) ? list.filter((one) => one !== item) : [...list, item];
}
