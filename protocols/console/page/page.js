// What the hub's pages have in common: who asks, how, and what is said when that
// fails. Text from the hub becomes text nodes only, never markup.

export const $ = (id) => document.getElementById(id);

// make returns an element with these properties and children.
export function make(name, properties, ...children) {
  const e = Object.assign(document.createElement(name), properties);
  e.append(...children);
  return e;
}

export function set(id, text) {
  const e = $(id);
  if (e.textContent !== String(text)) e.textContent = text;
}

export function health(text, kind) {
  set("health", text);
  $("health").className = `badge ${kind}`;
}

export function message(title, text, command) {
  $("message").hidden = !title;
  set("message-title", title || "");
  set("message-text", text || "");
  set("message-command", command || "");
  $("message-command").hidden = !command;
}

// The token stands in the URL's fragment, which no browser sends to a server
// and no proxy logs. It is kept for this tab, so that a reload and the other page
// work after the fragment has been taken out of the address bar.
export function readToken() {
  const fragment = location.hash.slice(1); // percent-encoded parts belong to the token
  if (fragment) {
    sessionStorage.setItem("token", `SharedAccessSignature ${fragment}`);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem("token") || "";
}

const howTo = "Open the link that the hub printed at its start. It ends in # and a token.";

export function noToken() {
  health("no token", "bad");
  $("data").hidden = true;
  message("This link has no token", howTo, "muster status");
}

export function refused(what) {
  sessionStorage.removeItem("token");
  health("not allowed", "bad");
  $("data").hidden = true;
  message(`The token has expired or is not allowed to read ${what}`, `${howTo} A restart of the hub prints a fresh one.`);
}

// ask sends a GET, or a POST if there is a body, and resolves with the answer's
// document, or with refused.
export async function ask(path, token, body) {
  const answer = await fetch(path, {
    method: body ? "POST" : "GET", body: body && JSON.stringify(body),
    headers: { Authorization: token, ...(body && { "Content-Type": "application/json" }) },
    cache: "no-store", signal: AbortSignal.timeout(10000),
  });
  if (answer.status === 401 || answer.status === 403) return { refused: true };
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(problem.detail || `the hub answered ${answer.status}`), { status: answer.status });
  }
  return { document: await answer.json() };
}

addEventListener("hashchange", () => location.reload());
