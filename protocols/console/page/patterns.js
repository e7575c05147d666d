// The patterns page: lists the patterns, and makes a form of the parameters of
// one. What may be entered, and what a text in a field stands for, the hub says;
// here are only the controls.

import { $, ask, health, make, message, noToken, readToken, refused, set } from "/assets/page.js";

const forms = "/api/v1/pattern-forms";
const most = 1000; // rows of the list
const token = readToken();
const chosen = new URLSearchParams(location.search);

const status = (p) => `${p.enabled ? "enabled" : "disabled"}${p.default ? "" : ", not the default"}`;

function showList({ items, cursor }) {
  $("list").hidden = false;
  $("patterns").tBodies[0].replaceChildren(...items.map((p) => make("tr", {},
    make("th", { scope: "row" }, make("a", { href: `/patterns?${new URLSearchParams({ name: p.name, version: p.version })}`, textContent: p.name })),
    make("td", { textContent: p.version }),
    make("td", { textContent: status(p) }),
    make("td", { textContent: p.summary || p.title || "" }))));
  $("list-scroll").hidden = items.length === 0;
  $("list-empty").hidden = items.length > 0;
  set("list-more", `The first ${items.length} are shown. All of them: muster pattern list --all`);
  $("list-more").hidden = !cursor;
}

// A control of the form: what it is called in faults, where it is, and what was
// entered, undefined for nothing.
const controls = [
  { path: "targets.ids", input: $("target-ids") },
  { path: "targets.where", input: $("target-where") },
];

// makers make the element in which a parameter is entered, by the field's
// control, and say how what was entered is read. With a default a text that was
// emptied is empty; without one nothing was entered.
const makers = {
  text: (f) => {
    const input = make("input", { type: "text", value: f.value ?? "" });
    return [input, () => (input.value === "" && f.value === undefined ? undefined : input.value)];
  },
  lines: (f) => {
    const input = make("textarea", { rows: 4, value: f.value ?? "" });
    return [input, () => input.value];
  },
  number: (f) => {
    const input = make("input", { type: "number", step: f.whole ? "1" : "any", min: f.minimum ?? "", max: f.maximum ?? "", value: f.value ?? "" });
    return [input, () => input.value || undefined];
  },
  checkbox: (f) => {
    const input = make("input", { type: "checkbox", checked: f.value === "true" });
    return [input, () => String(input.checked)];
  },
  select: (f) => {
    const options = f.choices.map((text, i) => make("option", { value: String(i), textContent: text, selected: text === f.value }));
    if (f.value === undefined) options.unshift(make("option", { value: "", textContent: f.required ? "choose one" : "nothing", selected: true }));
    const input = make("select", {}, ...options);
    return [input, () => (input.value === "" ? undefined : f.choices[Number(input.value)])];
  },
  json: (f) => {
    const input = make("textarea", { rows: Math.min(12, Math.max(3, (f.value ?? "").split("\n").length)), value: f.value ?? "" });
    return [input, () => input.value.trim() || undefined];
  },
};

function showField(f, i) {
  const id = `field-${i}`;
  const [input, read] = makers[f.control](f);
  Object.assign(input, { id, spellcheck: false, required: Boolean(f.required) });
  input.setAttribute("aria-describedby", `${id}-help ${id}-error`);
  controls.push({ path: `params.${f.name}`, name: f.name, input, read });
  const label = make("label", { htmlFor: id, textContent: f.label });
  if (f.required) label.append(make("span", { className: "required", textContent: " required" }));
  const help = make("p", { id: `${id}-help`, className: "help" });
  if (f.help) help.append(f.help, " ");
  help.append(make("code", { textContent: f.name }), `: ${f.expects}`);
  return make("div", { className: f.control === "checkbox" ? "field checkbox" : "field" },
    ...(f.control === "checkbox" ? [input, label] : [label, input]), help, make("p", { id: `${id}-error`, className: "wrong", hidden: true }));
}

function showForm(p) {
  document.title = `Muster ${p.name} ${p.version}`;
  $("pattern").hidden = false;
  set("pattern-title", `${p.title ? `${p.title}: ` : ""}${p.name} ${p.version}`);
  set("pattern-summary", p.summary || "");
  set("pattern-disabled", `It is disabled: nothing starts it until muster pattern enable ${p.name} --version ${p.version}`);
  $("pattern-disabled").hidden = p.enabled;
  $("targets").hidden = p.fleet;
  $("parameters-none").hidden = p.fields.length > 0;
  $("fields").replaceChildren(...p.fields.map(showField));
  $("form").addEventListener("input", () => { $("result").hidden = true; });
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    check(p);
  });
}

// check asks the hub what was entered comes to, and shows it.
async function check(p) {
  const texts = {};
  const unreadable = []; // the browser keeps to itself what stands in a field of numbers and is none
  for (const { path, name, input, read } of controls) {
    if (!name) continue;
    const text = read();
    if (input.validity.badInput) unreadable.push({ path, reason: "is no number", expected: "a number" });
    else if (text !== undefined) texts[name] = text;
  }
  const ids = $("target-ids").value.split("\n").map((id) => id.trim()).filter(Boolean);
  const where = $("target-where").value.trim();
  $("check").disabled = true;
  try {
    const answer = await ask(`${forms}/${encodeURIComponent(p.name)}/check?${new URLSearchParams({ version: p.version })}`, token, { texts, targets: { where, ids } });
    if (answer.refused) return refused("patterns");
    message("");
    health("ready", "good");
    const known = new Set(unreadable.map((f) => f.path));
    showFaults([...unreadable, ...answer.document.faults.filter((f) => !known.has(f.path))]);
    showResult(answer.document);
  } catch (e) {
    failed(e);
  } finally {
    $("check").disabled = false;
  }
}

// showFaults says beside each control what is wrong with it, above all what
// belongs to none, and goes to the first.
function showFaults(faults) {
  const rest = new Set(faults);
  let first = null;
  for (const { path, input } of controls) {
    const own = faults.filter((f) => f.path === path || f.path.startsWith(`${path}.`) || (f.path === "targets" && path === "targets.ids"));
    own.forEach((f) => rest.delete(f));
    const error = $(`${input.id}-error`);
    error.textContent = own.map((f) => sentence(f, f.path.slice(path.length + 1))).join(". ");
    error.hidden = own.length === 0;
    input.setAttribute("aria-invalid", String(own.length > 0));
    if (own.length > 0) first ??= input;
  }
  set("wrong", faults.length === 0 ? "" : [`${faults.length === 1 ? "One thing is" : `${faults.length} things are`} not right`, ...[...rest].map((f) => sentence(f, f.path))].join(". "));
  $("wrong").hidden = faults.length === 0;
  first?.focus();
}

const sentence = (f, where) => `${where ? `${where}: ` : ""}${f.reason}${f.expected ? `; expected ${f.expected}` : ""}`;

function showResult({ command, request, params }) {
  $("result").hidden = !command;
  if (!command) return;
  set("command", command);
  set("request-path", `${request.method} ${request.path}`);
  $("request-preview").hidden = !request.preview;
  set("request", JSON.stringify(request.body, null, 2));
  set("params", JSON.stringify(params, null, 2));
  $("result-title").focus();
}

async function copy(id) {
  getSelection().selectAllChildren($(id)); // so that the keys do it where the browser does not
  try {
    await navigator.clipboard.writeText($(id).textContent);
    set("announcer", "Copied");
  } catch {
    set("announcer", "Selected; copy it with the keys");
  }
}

function failed(e) {
  if (e.status === 404) message("There is no such pattern", e.message, "muster pattern list");
  else if (e.status) message("The hub refuses this", e.message);
  else {
    health("no answer", "bad");
    message("The hub does not answer", `It may be stopped or restarting (${e.message}). Try again when it runs.`);
  }
}

async function run() {
  if (!token) return noToken();
  const name = chosen.get("name");
  try {
    const answer = await ask(name ? `${forms}/${encodeURIComponent(name)}?${new URLSearchParams({ version: chosen.get("version") || "" })}` : `${forms}?limit=${most}`, token);
    if (answer.refused) return refused("patterns");
    health("ready", "good");
    $("data").hidden = false;
    if (name) showForm(answer.document);
    else showList(answer.document);
  } catch (e) {
    failed(e);
  }
}

for (const id of ["command", "request"]) $(`${id}-copy`).addEventListener("click", () => copy(id));
run();
