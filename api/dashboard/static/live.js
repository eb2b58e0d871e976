// A SharedWorker: one stream of changes for all tabs of this browser.

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10000;
const ports = new Set();
let source = null;
let cursor = null;
let state = "reconnecting";
let since = Date.now();
let pauseMs = FIRST_PAUSE_MS;
let timer = null;

function tell(message) {
  for (const port of ports) port.postMessage(message);
}

function become(next) {
  if (next !== state) since = Date.now();
  state = next;
  tell({ kind: "state", state, since });
}

function receive(kind, event) {
  cursor = event.lastEventId;
  pauseMs = FIRST_PAUSE_MS;
  if (state !== "live") become("live");
  const { items } = JSON.parse(event.data);
  if (kind === "reload" || items.length) tell({ kind, items });
}

async function reconnect() {
  source.close();
  source = null;
  let status = 0;
  try {
    status = (await fetch("/v1/whoami")).status;
  } catch {
    // Nobody answers.
  }
  become(status === 401 ? "signed-out" : "reconnecting");
  timer = setTimeout(connect, pauseMs * (0.5 + Math.random()));
  pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
}

function connect() {
  timer = null;
  if (!ports.size) return;
  source = new EventSource(cursor === null ? "/v1/changes" : `/v1/changes?after=${encodeURIComponent(cursor)}`);
  source.addEventListener("changes", (event) => receive("changes", event));
  source.addEventListener("reload", (event) => receive("reload", event));
  source.addEventListener("error", reconnect);
}

addEventListener("connect", ({ ports: [port] }) => {
  ports.add(port);
  port.postMessage({ kind: "state", state, since });
  port.addEventListener("message", ({ data }) => {
    if (data === "now" && timer !== null) {
      clearTimeout(timer);
      pauseMs = FIRST_PAUSE_MS;
      connect();
    }
    if (data !== "bye") return;
    ports.delete(port);
    if (ports.size || source === null) return;
    source.close();
    source = null;
    state = "reconnecting";
    cursor = null;
  });
  port.start();
  if (source === null && timer === null) connect();
});
