// The status page: asks the hub every two seconds and shows the answer.

import { $, ask, health, make, message, noToken, readToken, refused, set } from "/assets/page.js";

const every = 2000;
const most = 30000; // longest pause between two attempts while the hub is away

const number = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

function ago(time, now) {
  const s = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (!Number.isFinite(s)) return "";
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

function bytes(n) {
  if (!Number.isFinite(n)) return "";
  for (const [size, unit] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (n >= size) return `${number.format(n / size)} ${unit}`;
  }
  return `${n} bytes`;
}

// fill makes the table's body hold these rows: each a list of texts. Cells are
// reused, so that a screen reader or a selection is not thrown out.
function fill(table, rows, timeColumns) {
  const body = table.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((texts, i) => {
    const row = body.rows[i] || body.insertRow();
    texts.forEach((text, j) => {
      let cell = row.cells[j];
      if (!cell) {
        cell = j === 0 && !timeColumns.includes(0) ? document.createElement("th") : document.createElement("td");
        if (cell.tagName === "TH") cell.scope = "row";
        if (timeColumns.includes(j)) cell.className = "time";
        row.append(cell);
      }
      if (cell.textContent !== text) cell.textContent = text;
    });
  });
}

function facts(list) {
  $("facts").replaceChildren(...list.filter(([, v]) => v !== "" && v !== undefined).map(([k, v]) => (
    make("div", {}, make("dt", { textContent: k }), make("dd", { textContent: v }))
  )));
}

let latest = null;
let announced = -1;

function showDevices() {
  const all = latest.connected || [];
  const wanted = $("filter").value.trim().toLowerCase();
  const now = Date.now();
  const list = all.filter((d) => d.id.toLowerCase().includes(wanted));
  fill($("devices"), list.map((d) => [d.id, d.protocol, ago(d.since, now), ago(d.activity, now)]), [2, 3]);
  $("devices").hidden = list.length === 0;
  $("devices-empty").hidden = all.length > 0;
  const sessions = latest.sessions ?? all.length;
  let more = "";
  if (all.length > 0 && list.length === 0) more = "No connected device has this in its id.";
  else if (sessions > all.length) more = `The first ${all.length} of ${number.format(sessions)} are shown. All of them: muster device list`;
  set("devices-more", more);
  $("devices-more").hidden = more === "";
}

// names are words for every kind of change.
const names = {
  "identity.created": "identity created", "identity.updated": "identity changed", "identity.deleted": "identity deleted",
  "twin.tags": "tags", "twin.desired": "desired properties", "twin.reported": "reported properties", "twin.modelId": "model",
  "session.connected": "connected", "session.disconnected": "disconnected",
  "method.queued": "method queued", "method.sending": "queued method sent", "method.finished": "queued method ended",
  "file.uploaded": "file uploaded", "file.failed": "upload failed", "file.deleted": "file deleted",
  "query.saved": "query saved", "query.deleted": "query deleted",
  "schema.declared": "schema declared", "schema.dropped": "schema dropped", "schema.violated": "schema violated",
  "job.created": "job made", "job.status": "job moved on", "job.deleted": "job deleted", "job.execution": "job's execution ended",
  "configuration.saved": "configuration saved", "configuration.deleted": "configuration deleted", "configuration.applied": "configurations applied",
  "pattern.installed": "pattern installed", "pattern.state": "pattern changed", "pattern.removed": "pattern removed", "pattern.event": "event of a pattern",
  "run.status": "run moved on", "run.step": "run's progress",
  "webhook.paused": "webhook paused", "fault.added": "fault injected", "fault.removed": "fault ended",
  "backup.completed": "backup made", "backup.failed": "backup failed",
};

// who names the author, or says that it was the device itself.
function who(change) {
  const own = [`device:${change.id}`, `module:${change.id}`];
  return own.includes(change.principal) ? "itself" : change.principal || "";
}

function show(s) {
  latest = s;
  set("hub-name", s.hub.name);
  document.title = `Muster ${s.hub.name}: ${s.devices.connected} connected`;
  if (s.hub.ready) health("ready", "good");
  else health("not ready", "bad");
  message(s.hub.ready ? "" : "The hub is not ready", (s.hub.notReady || []).join("; "), s.hub.ready ? "" : "muster doctor");
  $("data").hidden = false;
  set("connected", number.format(s.devices.connected));
  set("total", number.format(s.devices.total));
  set("disabled", number.format(s.devices.disabled));
  set("modules", number.format(s.modules || 0));
  set("runs", number.format(Object.values(s.runs || {}).reduce((sum, n) => sum + n, 0)));
  for (const kind of ["telemetry", "twin", "methods"]) set(`rate-${kind}`, number.format(s.rates?.[kind] || 0));
  showDevices();
  const changes = s.recent || [];
  fill($("changes"), changes.map((c) => [
    clock.format(new Date(c.time)), (names[c.kind] || c.kind) + (c.version ? ` v${c.version}` : ""), c.id, who(c),
  ]), [0]);
  $("changes").hidden = changes.length === 0;
  $("changes-empty").hidden = changes.length > 0;
  const st = s.storage || {};
  const sent = s.totals || {};
  facts([
    ["Version", s.hub.version], ["Names", (s.hub.hosts || []).join(", ")], ["Limits", s.hub.limits],
    ["Up since", new Date(s.hub.startedTime).toLocaleString()],
    ["Messages taken", number.format(sent.messages || 0)], ["Methods called", number.format(sent.methods || 0)],
    ["Stored changes", number.format(st.commits || 0)], ["On disk", bytes(st.diskBytes)],
    ["Disk free", bytes(st.freeBytes)], ["Checkpoint", st.checkpointAgeSeconds === undefined ? "" : `${number.format(st.checkpointAgeSeconds)} s ago`],
  ]);
  if (announced !== s.devices.connected) {
    announced = s.devices.connected;
    set("announcer", `${announced} devices connected`);
  }
}

async function run() {
  let failures = 0;
  for (;;) {
    const token = readToken();
    if (!token) return noToken();
    try {
      const answer = await ask("/api/v1/status", token);
      if (answer.refused) return refused("the status");
      failures = 0;
      show(answer.document);
    } catch (e) {
      failures++;
      health("no answer", "bad");
      message("The hub does not answer", `It may be stopped or restarting (${e.message}). This page goes on trying.`);
    }
    await new Promise((done) => setTimeout(done, Math.min(most, every * 2 ** Math.min(failures, 4))));
  }
}

$("filter").addEventListener("input", () => latest && showDevices());
run();
