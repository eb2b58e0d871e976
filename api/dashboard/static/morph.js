// Turns what is shown into what should be, touching only what differs: focus, scroll, selection and open menus stay.

// What scripts have set, and answers don't know.
const OURS = new Set(["open", "aria-busy", "data-label", "data-titled"]);
const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || null : null);
const isSame = (one, other) => one.nodeType === other.nodeType && one.nodeName === other.nodeName && keyOf(one) === keyOf(other);

function morphAttributes(old, wanted) {
  let differs = false;
  for (const { name } of [...old.attributes]) {
    if (!wanted.hasAttribute(name) && !OURS.has(name)) {
      old.removeAttribute(name);
      differs = true;
    }
  }
  for (const { name, value } of [...wanted.attributes]) {
    if (old.getAttribute(name) !== value) {
      old.setAttribute(name, value);
      differs = true;
    }
  }
  return differs;
}

function morphNode(old, wanted) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== wanted.nodeValue) old.nodeValue = wanted.nodeValue;
    return;
  }
  const differs = morphAttributes(old, wanted);
  if (old.hasAttribute("data-keep")) {
    // A module draws what is inside, from the attributes.
    if (differs) old.dispatchEvent(new CustomEvent("xsam:changed"));
    return;
  }
  const isTyped = old === document.activeElement;
  if (old.nodeName === "INPUT" && !isTyped) {
    if (old.type === "checkbox" || old.type === "radio") {
      if (!old.hasAttribute("data-selects")) old.checked = wanted.hasAttribute("checked");
    } else old.value = wanted.getAttribute("value") || "";
  }
  morphChildren(old, wanted);
  if (old.nodeName === "SELECT" && !isTyped) old.value = wanted.value;
}

export function morphChildren(old, wanted) {
  const keyed = new Map([...old.childNodes].filter(keyOf).map((node) => [keyOf(node), node]));
  const kept = new Set([...wanted.childNodes].map(keyOf).filter((key) => key !== null));
  let at = old.firstChild;
  for (const next of [...wanted.childNodes]) {
    const key = keyOf(next);
    const known = key === null ? at : keyed.get(key);
    if (known && isSame(known, next)) {
      // What lies before it goes first: a node that is moved loses its scroll position.
      while (key !== null && at && at !== known && !kept.has(keyOf(at))) {
        const following = at.nextSibling;
        at.remove();
        at = following;
      }
      if (known === at) at = at.nextSibling;
      else old.insertBefore(known, at);
      morphNode(known, next);
    } else old.insertBefore(next, at);
  }
  while (at) {
    const following = at.nextSibling;
    at.remove();
    at = following;
  }
}
