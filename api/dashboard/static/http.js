// Requests to this service: JSON of REST, and parts of pages. Nothing else becomes HTML.

const policy = (window.trustedTypes || { createPolicy: (_, rules) => rules }).createPolicy("xsam", {
  createHTML: (text) => text,
  createScriptURL: (url) => {
    const own = new URL(url, location.href);
    if (own.origin !== location.origin || !own.pathname.startsWith("/assets/")) throw new TypeError(`no script of ours: ${url}`);
    return own.href;
  },
});

export const assetUrl = (name) => policy.createScriptURL(new URL(name, import.meta.url).href);

// What REST refuses, with its own sentence; status 0 means that nobody answered.
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail);
    this.status = status;
    this.code = problem.code;
    this.errors = problem.errors || [];
    this.requestId = problem.request_id || null;
  }
}

async function answered(url, options) {
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { detail: "The service does not answer.", code: "unreachable" });
  }
  if (response.ok) return response;
  const kind = response.headers.get("content-type") || "";
  const problem = kind.includes("json") ? await response.json() : { detail: `The service answered ${response.status}.`, code: "unknown" };
  throw new Refused(response.status, problem);
}

export async function getJson(url, options = {}) {
  return (await answered(url, { headers: { Accept: "application/json" }, ...options })).json();
}

export async function getText(url, options = {}) {
  return (await answered(url, options)).text();
}

export const getStream = (url, options = {}) => answered(url, options);

export async function sendJson(method, url, body, headers = {}) {
  const response = await answered(url, {
    method,
    headers: { Accept: "application/json", "Content-Type": "application/json", ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return response.status === 204 ? null : response.json();
}

// One block of a page, as a document fragment, with the title that the whole page would have.
export async function getPart(url, name, options = {}) {
  const response = await answered(url, { headers: { Accept: "text/html", "X-Part": name }, ...options });
  if (new URL(response.url).origin !== location.origin || response.headers.get("X-Part") !== name) {
    throw new Refused(response.status, { detail: "The answer is no part of this page.", code: "unknown" });
  }
  const template = document.createElement("template");
  template.innerHTML = policy.createHTML(await response.text());
  return { part: template.content, title: decodeURIComponent(response.headers.get("X-Title") || ""), url: response.url };
}
