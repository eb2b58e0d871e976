// A log of any length: only the lines in sight are in the document. Follows while one stays at its end.

import { getStream } from "../http.js";
import { showRefusal } from "../strips.js";
import { visible } from "../charts/format.js";
import { remember } from "./state.js";

const LINE_PX = 24;
const SPARE = 20;
const ANSI = /\u001b\[([0-9;]*)m|\u001b\[[0-9;?]*[A-Za-z]/g;
const COLOURS = { 31: "red", 32: "green", 33: "yellow", 34: "blue", 35: "magenta", 36: "cyan", 91: "red", 92: "green", 93: "yellow", 94: "blue" };
const LINE = /^(\S+) \[rank (\d+)\] (.*)$/;
const ERROR = /\b(error|exception|traceback|fatal|out of memory|killed)\b/i;

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

// Colours of a terminal become classes of a fixed list; every other control is dropped.
function coloured(text) {
  const parts = [];
  let classes = "";
  let from = 0;
  for (const match of text.matchAll(ANSI)) {
    if (match.index > from) parts.push([classes, text.slice(from, match.index)]);
    from = match.index + match[0].length;
    if (match[1] === undefined) continue;
    const codes = match[1].split(";").map(Number);
    const colour = codes.map((code) => COLOURS[code]).find(Boolean);
    classes = codes.includes(0) || match[1] === "" ? "" : [colour && `ansi-${colour}`, codes.includes(1) && "ansi-bold"].filter(Boolean).join(" ");
  }
  parts.push([classes, text.slice(from)]);
  return parts.filter(([, piece]) => piece).map(([name, piece]) => (name ? make("span", name, visible(piece)) : visible(piece)));
}

export function mount(element) {
  const lines = [];
  let found = [];
  let isFollowing = element.dataset.line === "";
  let isLocal = false;
  let wanted = Number(element.dataset.line) || null;
  let linked = wanted;

  const find = Object.assign(make("input"), { type: "search", placeholder: "find", value: element.dataset.find });
  find.setAttribute("aria-label", "Find in the log");
  const count = make("span", "quiet number");
  count.setAttribute("role", "status");
  const button = (words, act) => {
    const made = make("button", "", words);
    made.type = "button";
    made.addEventListener("click", act);
    return made;
  };
  const box = make("div", "sunken log-box");
  box.tabIndex = 0;
  box.setAttribute("role", "log");
  box.setAttribute("aria-live", "off");
  box.setAttribute("aria-label", "Log");
  const room = make("div", "log-room");
  const page = make("ol", "log-lines");
  room.append(page);
  box.append(room);

  const row = (index) => {
    const text = lines[index];
    const parsed = LINE.exec(text);
    const number = make("a", "log-number", String(index + 1));
    const url = new URL(location.href);
    url.searchParams.set("line", index + 1);
    number.href = url.href;
    number.addEventListener("click", (event) => {
      event.preventDefault();
      wanted = index + 1;
      remember({ line: wanted });
      draw();
    });
    const made = make("li", index + 1 === wanted ? "is-wanted" : ERROR.test(text) ? "is-error" : "", number);
    if (parsed === null) made.append(make("span", "log-text", ...coloured(text)));
    else {
      const at = new Date(parsed[1]);
      const clock = isLocal ? at.toLocaleTimeString() : parsed[1].slice(11, 23);
      made.append(make("span", "log-at", clock), make("span", `log-rank rank-${Number(parsed[2]) % 8}`, parsed[2]), make("span", "log-text", ...coloured(parsed[3])));
    }
    return made;
  };

  const draw = () => {
    room.style.height = `${lines.length * LINE_PX}px`;
    const first = Math.max(Math.floor(box.scrollTop / LINE_PX) - SPARE, 0);
    const last = Math.min(first + Math.ceil(box.clientHeight / LINE_PX) + 2 * SPARE, lines.length);
    page.style.transform = `translateY(${first * LINE_PX}px)`;
    page.start = first + 1;
    page.replaceChildren(...Array.from({ length: last - first }, (_, i) => row(first + i)));
  };

  const goTo = (index) => {
    isFollowing = false;
    follow.setAttribute("aria-pressed", "false");
    wanted = index + 1;
    remember({ line: wanted });
    box.scrollTop = Math.max(index * LINE_PX - box.clientHeight / 2, 0);
    draw();
  };

  const search = () => {
    const text = find.value.toLowerCase();
    found = text ? lines.flatMap((line, i) => (line.toLowerCase().includes(text) ? [i] : [])) : [];
    count.textContent = text ? `${found.length} of ${lines.length} lines` : `${lines.length} lines`;
  };

  const next = (step) => {
    if (!found.length) return;
    const here = (wanted ?? 0) - 1;
    const after = step > 0 ? found.find((i) => i > here) ?? found[0] : found.findLast((i) => i < here) ?? found.at(-1);
    goTo(after);
  };

  const follow = button("follow", () => {
    isFollowing = !isFollowing;
    follow.setAttribute("aria-pressed", String(isFollowing));
    if (isFollowing) box.scrollTop = box.scrollHeight;
  });
  follow.setAttribute("aria-pressed", String(isFollowing));
  find.addEventListener("input", () => {
    remember({ find: find.value });
    search();
    if (found.length) goTo(found[0]);
  });
  find.addEventListener("keydown", (event) => event.key === "Enter" && next(event.shiftKey ? -1 : 1));
  box.addEventListener("scroll", () => {
    const isAtEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - LINE_PX;
    if (isFollowing && !isAtEnd) {
      isFollowing = false;
      follow.setAttribute("aria-pressed", "false");
    }
    draw();
  });
  const tools = make("div", "actions");
  tools.append(
    find,
    button("↑", () => next(-1)),
    button("↓", () => next(1)),
    count,
    button("first error", () => {
      const index = lines.findIndex((line) => ERROR.test(line));
      if (index >= 0) goTo(index);
    }),
    follow,
    button("UTC / local", () => {
      isLocal = !isLocal;
      draw();
    }),
  );
  for (const [arrow, words] of [["↑", "Previous match"], ["↓", "Next match"]]) [...tools.children].find((one) => one.textContent === arrow).setAttribute("aria-label", words);
  element.append(tools, box);

  const read = async () => {
    lines.length = 0;
    const url = element.dataset.src + (element.dataset.runs === "yes" ? `${element.dataset.src.includes("?") ? "&" : "?"}follow=true` : "");
    const stop = new AbortController();
    const gone = setInterval(() => element.isConnected || stop.abort(), 1000);
    try {
      const reader = (await getStream(url, { signal: stop.signal })).body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const pieces = (rest + value).split("\n");
        rest = pieces.pop();
        for (const piece of pieces) lines.push(piece);
        search();
        draw();
        if (isFollowing) box.scrollTop = box.scrollHeight;
        else if (linked !== null && lines.length >= linked) {
          goTo(linked - 1);
          linked = null;
        }
      }
      if (!lines.length) count.textContent = "Nothing was written yet.";
    } catch (error) {
      if (element.isConnected) showRefusal(error, read);
    } finally {
      clearInterval(gone);
    }
  };
  read();
}
