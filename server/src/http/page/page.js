// Tez's page. Everything that came from outside (names, descriptions, sentences) is shown through
// textContent only, so that it cannot become markup.

const PAGE_STUDIES = 200;
const POLL_MS = 15_000;       // finds a connection that died without a word
const FETCH_MS_MAX = 8_000;
const VERDICTS_SHOWN_MAX = 200;
const EVENT_TYPES = ["study_receiving", "study_complete", "study_queued", "study_analysing", "study_analysed",
  "study_not_analysed", "study_marked", "result_superseded", "object_unreadable", "object_conflict", "reset"];

const byId = (id) => document.getElementById(id);
const view = { limit: PAGE_STUDIES, known: new Map(), updatedAt: null, connected: false, clockOffsetMs: 0, first: true, tried: false,
  withRead: false, alarms: new Map() };

// ---- small things ----

/** Makes an element; children are elements or text. */
function el(name, options = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (key === "class") node.className = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const words = (text) => String(text ?? "").replaceAll("_", " ");
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const serverNow = () => Date.now() + view.clockOffsetMs;

/** "Family^Given^Middle" of DICOM, as people write it; of several scripts, the first that is there (PS3.5 section 6.2.1). */
function personName(name) {
  const group = String(name ?? "").split("=").find((text) => text.replaceAll("^", "").trim()) ?? "";
  const [family, ...rest] = group.split("^").map((part) => part.trim());
  const given = rest.filter(Boolean).join(" ");
  return [family, given].filter(Boolean).join(", ") || "No name";
}

/** "19560131" as "1956-01-31". */
function date(text) {
  const parts = /^(\d{4})(\d{2})(\d{2})$/.exec(text ?? "");
  return parts ? parts.slice(1).join("-") : text ?? "";
}

/** "076Y" as "76 y". */
function age(text) {
  const parts = /^0*(\d+)([DWMY])$/.exec(text ?? "");
  return parts ? `${parts[1]} ${parts[2].toLowerCase()}` : text ?? "";
}

const clockTime = (iso) => new Date(iso).toLocaleTimeString([], { hour12: false });
const dateTime = (iso) => (iso ? new Date(iso).toLocaleString([], { hour12: false }) : "–");

function ago(iso) {
  const seconds = Math.max(0, Math.round((serverNow() - Date.parse(iso)) / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min ago`;
  return `${Math.floor(seconds / 86_400)} days ago`;
}

function seconds(from, to) {
  const span = (Date.parse(to) - Date.parse(from)) / 1000;
  return Number.isFinite(span) ? `${span.toFixed(1)} s` : "–";
}

async function getJson(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(FETCH_MS_MAX), cache: "no-store" });
  const stated = Date.parse(response.headers.get("date") ?? "");
  if (Number.isFinite(stated)) view.clockOffsetMs = stated - Date.now();
  const body = await response.json();
  if (!response.ok && path !== "/readyz") throw new Error(body.detail ?? response.statusText);
  return body;
}

// ---- what a study is shown as ----

const FINDING_NAMES = {
  intracranial_hemorrhage: "intracranial haemorrhage", intraparenchymal_hemorrhage: "intraparenchymal haemorrhage",
  intraventricular_hemorrhage: "intraventricular haemorrhage", subarachnoid_hemorrhage: "subarachnoid haemorrhage",
  subdural_hemorrhage: "subdural haemorrhage", epidural_hemorrhage: "epidural haemorrhage",
};
const findingName = (kind) => FINDING_NAMES[kind] ?? words(kind);

/** The badge: a class for the colour and always a word. */
function badge(study) {
  const ended = ["analysed", "partial", "not_analysed"].includes(study.state);
  const stale = study.result_generation !== null && study.result_generation < study.generation;
  if (study.state === "not_analysed") return { tone: "not-analysed", word: "Not analysed", note: "Not a normal. Read it." };
  if (study.result_generation === null) return { tone: "waiting", word: capital(study.state), note: "No result yet" };
  const notes = [];
  if (study.state === "partial") notes.push("partly analysed: something is missing or in doubt");
  if (stale && !ended) notes.push("out of date: new images came, analysed again");
  if (study.priority === "routine") notes.push("no finding by this model; not a negative read");
  const noted = priorityWord(study.priority);
  return { tone: study.priority, word: noted, note: capital(notes.join("; ")) };
}

function findingText(finding) {
  const parts = [findingName(finding.kind)];
  if (finding.side) parts.push(words(finding.side));
  if (typeof finding.volume_ml === "number") parts.push(`${finding.volume_ml.toFixed(1)} mL`);
  if (typeof finding.shift_mm === "number") parts.push(`${finding.shift_mm.toFixed(1)} mm`);
  parts.push(`p ${finding.probability.toFixed(2)}`);
  return parts.join(", ");
}

const presentTexts = (findings) => findings.filter((finding) => finding.present).map((finding) => capital(findingText(finding)));
const priorityWord = (priority) => priority === "unknown" ? "Not cleared" : capital(priority);

function whyCell(study) {
  const hasResult = study.result_generation !== null || study.state === "not_analysed";
  if (!hasResult) return [el("span", { class: "dim" }, "Waits for its result")];
  const because = study.priority_because.map(capital);
  const present = presentTexts(study.findings);
  // A reason that the priority already tells is not told twice.
  const reasons = study.reasons.map((reason) => reason.text).filter((text) => !because.some((told) => told.includes(text)));
  const [first, ...rest] = [...because, ...present, ...reasons];
  return [first, ...rest.map((text) => el("span", { class: "dim" }, text))];
}

function stateCell(study) {
  const { received_first, received_last, analysed } = study.times;
  const cell = [capital(words(study.state)), el("span", { class: "dim" }, "Received ", elapsed(received_first))];
  if (analysed && ["analysed", "partial", "not_analysed"].includes(study.state)) {
    cell.push(el("span", { class: "dim" }, `Result ${seconds(received_last, analysed)} after the last image`));
  }
  if (study.generation > 1) cell.push(el("span", { class: "dim" }, `Round ${study.generation}`));
  return cell;
}

function elapsed(iso) {
  return el("time", { datetime: iso, title: dateTime(iso), "data-elapsed": iso }, ago(iso));
}

function row(study) {
  const { tone, word, note } = badge(study);
  const { patient, counts } = study;
  const link = el("a", { class: "name", href: `#study=${study.study_uid}`, "data-uid": study.study_uid }, personName(patient.name));
  const facts = [age(patient.age), patient.sex, patient.birth_date && `born ${date(patient.birth_date)}`].filter(Boolean).join(" · ");
  const objects = counts.objects === 1 ? "1 object" : `${counts.objects} objects`;
  const conflicts = counts.conflicts > 0 ? `, ${counts.conflicts} in conflict` : "";
  const cells = [
    [el("span", { class: "mark" }, word), note && el("span", { class: "dim" }, note)],
    [link, el("span", { class: "dim" }, `ID ${patient.id || "–"}`), facts && el("span", { class: "dim" }, facts)],
    whyCell(study),
    [`Acc. ${patient.accession_number || "–"}`, el("span", { class: "dim" }, patient.study_description || "No description"),
      el("span", { class: "dim" }, `${objects}${conflicts}`), patient.institution_name && el("span", { class: "dim" }, patient.institution_name)],
    stateCell(study),
  ];
  if (study.read_at) cells[0].push(el("span", { class: "dim" }, `Read ${dateTime(study.read_at)}`));
  if (study.damaged_objects > 0) {
    cells[3].push(el("span", { class: "dim" }, `${study.damaged_objects} of them damaged or lost on the disk: send the study again`));
  }
  if (study.result_generation !== null) cells[4].push(readButton(study));
  const node = el("tr", { role: "row", class: study.read_at ? `${tone} read` : tone });
  node.append(...cells.map((cell) => el("td", { role: "cell" }, ...cell.filter(Boolean))));
  return node;
}

/** Marks a study as read, or takes the mark back: never more than a mark. */
function readButton(study) {
  const text = study.read_at ? "Mark as unread" : "Mark as read";
  const button = el("button", { type: "button", class: "small", "aria-label": `${text}: ${personName(study.patient.name)}` }, text);
  button.onclick = async () => {
    button.disabled = true;
    const path = `/api/v1/studies/${study.study_uid}/read`;
    try {
      const answer = study.read_at ? await fetch(path, { method: "DELETE" })
        : await fetch(`${path}?result_generation=${study.result_generation}`, { method: "PUT" });
      if (!answer.ok) openDialog("Not marked", [el("p", {}, (await answer.json()).detail ?? answer.statusText)]);
    } catch {
      openDialog("Not marked", [el("p", {}, "Tez does not answer. Try again.")]);
    }
    button.disabled = false;
    refresh();
  };
  return button;
}

// ---- the list ----

function showList(list) {
  const focused = document.activeElement?.dataset?.uid;
  const arrived = [];
  const rows = list.studies.map((study) => {
    const node = row(study);
    const before = view.known.get(study.study_uid);
    const now = `${study.priority} ${study.state}`;
    if (!view.first && before !== now) {
      node.classList.add("new");
      if (before === undefined || !before.startsWith(study.priority)) arrived.push(study);
    }
    view.alarms.delete(study.study_uid);
    view.known.set(study.study_uid, now);
    return node;
  });
  view.first = false;
  announce(arrived);
  byId("rows").replaceChildren(...rows);
  if (focused) document.querySelector(`a[data-uid="${CSS.escape(focused)}"]`)?.focus();
  byId("empty").hidden = list.total > 0;
  showCounts(list);
  // What is wrong is told with the list, and does not wait for the next look at the service.
  const told = (list.problems ?? []).join(" ");
  if (told !== view.problems) { view.problems = told; showService(); }
}

function showCounts(list) {
  const count = (test) => list.studies.filter(test).length;
  const critical = list.critical_unread;
  const unread = list.unreadable_objects;
  const parts = [`${list.total} ${list.total === 1 ? "study" : "studies"}`];
  if (list.total > list.studies.length) parts.push(`first ${list.studies.length} shown`);
  if (critical) parts.push(`${critical} critical unread`);
  const not = count((study) => study.state === "not_analysed");
  if (not) parts.push(`${not} not analysed`);
  if (unread) parts.push(`${unread} unreadable ${unread === 1 ? "object" : "objects"}`);
  byId("counts").textContent = parts.join(" · ");
  byId("show-read").hidden = list.read === 0 && !view.withRead;
  byId("show-read").textContent = view.withRead ? "Hide read" : `Show read (${list.read})`;
  byId("more").hidden = list.total <= list.studies.length || view.limit >= 1000;
  document.title = critical ? `(${critical} critical) Tez worklist` : "Tez worklist";
}

/** Tells of all that came in at once, not only of the last. */
function announce(studies) {
  const told = studies.filter((study) => study.result_generation !== null && ["critical", "urgent"].includes(study.priority))
    .map((study) => `${capital(study.priority)}: ${personName(study.patient.name)}`);
  if (told.length > 0) byId("arrivals").textContent = told.join(". ");
}

/** An alarm that stands too far down to be on the page is told all the same. */
async function announceUnlisted() {
  for (const uid of [...view.alarms.keys()]) {
    view.alarms.delete(uid);
    try {
      const study = await getJson(`/api/v1/studies/${uid}`);
      if (!study.read_at) announce([study]);
    } catch { /* The next look at the list shows whether Tez answers. */ }
  }
}

let refreshing = null;
let again = false;
/** Reads the list; several calls during one reading make one more. */
async function refresh() {
  if (refreshing) { again = true; return; }
  refreshing = getJson(`/api/v1/worklist?limit=${view.limit}&read=${view.withRead}`);
  try {
    showList(await refreshing);
    announceUnlisted();
    view.updatedAt = new Date();
  } catch {
    view.tried = true;
    view.connected = false;
  } finally {
    refreshing = null;
    showConnection();
  }
  if (again) { again = false; setTimeout(refresh, 300); }
}

function showConnection() {
  if (!view.tried) return; // nothing is lost before the first try
  const at = view.updatedAt ? view.updatedAt.toLocaleTimeString([], { hour12: false }) : null;
  const live = byId("live");
  live.className = `live ${view.connected ? "on" : "off"}`;
  live.textContent = view.connected ? "Live" : "Not live";
  const stale = byId("stale");
  stale.hidden = view.connected;
  const text = at
    ? `Connection lost. The list below is as of ${at} and may miss studies. Trying again…`
    : "No connection to Tez. Trying again…";
  if (!view.connected && stale.textContent !== text) stale.textContent = text;
}

async function showService() {
  let text = "";
  try {
    const answer = await getJson("/readyz");
    const state = answer.readiness ?? answer;
    const wrong = (state.checks ?? []).filter((check) => !check.ok).map((check) => check.text);
    if (state.degraded) text = "No study can be analysed now; each ends as not analysed. ";
    text += wrong.join(" ");
    if (state.model?.name === "bootstrap") {
      text += ` The model in use, "bootstrap", is not a trained model: it only answers to bright tissue inside the skull, to test the path. Do not rely on its results.`;
    }
    byId("model").textContent = state.model
      ? `Tez ${state.version} · model ${state.model.name} ${state.model.version} · ${state.model.sha256.slice(0, 12)}`
      : `Tez ${state.version ?? ""} · no model`;
  } catch { return; }
  const banner = byId("service");
  banner.hidden = text.trim() === "";
  if (banner.textContent !== text.trim()) banner.textContent = text.trim();
}

function listen() {
  const source = new EventSource("/api/v1/events");
  source.onopen = () => { view.tried = true; view.connected = true; refresh(); };
  source.onerror = () => {
    view.tried = true;
    view.connected = false;
    showConnection();
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5_000);
  };
  let waiting = null;
  for (const type of EVENT_TYPES) {
    source.addEventListener(type, (event) => {
      if (type === "study_analysed") noteAlarm(event.data);
      waiting ??= setTimeout(() => { waiting = null; refresh(); refreshDialog(); }, 150);
    });
  }
  view.source = source;
}

function noteAlarm(data) {
  try {
    const told = JSON.parse(data);
    if (["critical", "urgent"].includes(told.priority)) view.alarms.set(told.study_uid, true);
  } catch { /* Not an event of Tez: nothing to tell. */ }
}

/** Finds out when the line is dead although nothing said so, and when it lives again. */
async function poll() {
  await refresh();
  const fresh = view.updatedAt && Date.now() - view.updatedAt.getTime() < 2 * POLL_MS;
  view.connected = Boolean(fresh) && view.source?.readyState === EventSource.OPEN;
  showConnection();
  await showService();
}

// ---- one study ----

const definitions = (pairs) => el("dl", {}, ...pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
  .flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
const reasonList = (reasons) => el("ul", { class: "plain" }, ...reasons.map((reason) => el("li", {}, reason.text)));
const part = (title, ...nodes) => [el("h3", {}, title), ...nodes];

const interval = (bounds) => bounds ? ` (likely ${bounds.map((bound) => bound.toFixed(1)).join(" to ")})` : "";

function findingsTable(findings) {
  const head = ["Finding", "By this model", "Probability", "Volume or shift", "Side", "Slices that show it"];
  const rows = findings.map((finding) => el("tr", {}, ...[
    capital(findingName(finding.kind)), finding.present ? "suspected" : "not seen", finding.probability.toFixed(3),
    typeof finding.volume_ml === "number" ? `${finding.volume_ml.toFixed(1)} mL${interval(finding.volume_interval_ml)}`
      : typeof finding.shift_mm === "number" ? `${finding.shift_mm.toFixed(1)} mm` : "–",
    words(finding.side ?? "–"), finding.key_slices.length ? finding.key_slices.join(", ") : "–",
  ].map((text) => el("td", {}, text))));
  return el("table", {}, el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, ...rows));
}

function geometryPart(geometry) {
  if (!geometry) return [el("p", {}, "No volume could be made.")];
  const pair = (values) => values.map((value) => value.toFixed(2)).join(" – ");
  return [definitions([
    ["Slices", String(geometry.slices)], ["Gantry tilt", `${geometry.tilt_deg.toFixed(1)}°`],
    ["Pixel spacing", `${geometry.spacing_mm.map((value) => value.toFixed(2)).join(" × ")} mm`],
    ["Gaps between slices", `${pair(geometry.gap_mm)} mm`], ["Rectified", geometry.rectified ? "yes" : "no"],
  ]), reasonList(geometry.warnings)];
}

function scanItem(scan) {
  const present = presentTexts(scan.findings);
  const says = scan.state === "not_analysed" ? ["Not analysed"]
    : [priorityWord(scan.priority), ...(present.length ? present : ["no finding by this model"])];
  const reasons = scan.reasons.map((reason) => reason.text);
  return el("li", {}, el("strong", {}, scan.acquired ? `Scanned ${scan.acquired.replace("T", " ")}: ` : "Scan: "),
    [...says, ...reasons].join("; "));
}

function scansPart(scans) {
  return scans.length > 1 ? part(`All ${scans.length} scans of this study`, el("ul", { class: "plain" }, ...scans.map(scanItem))) : [];
}

function reportParts(study) {
  const { report } = study;
  if (!report) return part("Result", el("p", {}, "There is no result yet."));
  const findings = report.findings.length > 0 ? findingsTable(report.findings)
    : el("p", {}, el("strong", {}, "Nothing was analysed. "), "This says nothing about the patient: read the study.");
  const series = report.series.map((verdict) => el("li", {}, el("strong", {}, verdict.chosen ? "Used: " : "Not used: "),
    verdict.reasons.map((reason) => reason.text).join(" "), el("span", { class: "dim" }, verdict.uid)));
  const timing = Object.entries(report.timing_ms).map(([stage, ms]) => [words(stage), `${ms.toFixed(1)} ms`]);
  const model = report.model
    ? [["Model", `${report.model.name} ${report.model.version}`], ["SHA-256", report.model.sha256],
      report.model.name === "bootstrap" ? ["Note", "Not a trained model."] : ["", ""]]
    : [["Model", "none ran"]];
  return [
    ...part("Why", el("ul", { class: "plain" }, ...report.priority_because.map((text) => el("li", {}, text))), reasonList(report.reasons)),
    ...part(report.scans?.length > 1 ? "Findings of the scan that decides" : "Findings by this model", findings),
    ...scansPart(report.scans ?? []), ...part("Series", el("ul", { class: "plain" }, ...series)),
    ...part("Geometry", ...geometryPart(report.geometry)), ...part("Model", definitions(model)), ...part("Time by stage", definitions(timing)),
  ];
}

function studyBody(study) {
  const { patient, times, counts } = study;
  const { tone, word, note } = badge(study);
  const rounds = study.rounds.filter((round) => round.superseded_at)
    .map((round) => el("li", {}, `Round ${round.generation}: result of ${dateTime(round.created_at)}, superseded ${dateTime(round.superseded_at)} · `,
      el("a", { href: `/api/v1/studies/${study.study_uid}/reports/${round.generation}` }, "JSON")));
  const problems = study.problems.map((problem) => el("li", {}, `${dateTime(problem.at)}: ${problem.reason.text}`));
  return [
    el("p", {}, el("span", { class: `mark ${tone}` }, word), note && el("span", { class: "dim" }, note)),
    definitions([["Patient ID", patient.id], ["Born", date(patient.birth_date)], ["Sex", patient.sex], ["Age", age(patient.age)],
      ["Accession number", patient.accession_number], ["Description", patient.study_description], ["Institution", patient.institution_name],
      ["Study date", date(patient.study_date)], ["Study UID", study.study_uid]]),
    ...reportParts(study),
    ...part("Times", definitions([["First image", dateTime(times.received_first)], ["Last image", dateTime(times.received_last)],
      ["Complete", dateTime(times.complete)], ["Queued", dateTime(times.queued)], ["Analysis began", dateTime(times.analysis_started)],
      ["Result", dateTime(times.analysed)]])),
    ...part("Objects", definitions([["Received", String(counts.objects)], ["With an image", String(counts.images)],
      ["In conflict", String(counts.conflicts)]])),
    ...(problems.length ? part("Problems", el("ul", { class: "plain" }, ...problems)) : []),
    ...(rounds.length ? part("Superseded results", el("ul", { class: "plain" }, ...rounds)) : []),
    el("p", {}, el("a", { href: `/api/v1/studies/${study.study_uid}` }, "All of it as JSON")),
  ];
}

function openDialog(title, nodes) {
  byId("dialog-title").textContent = title;
  byId("dialog-body").replaceChildren(...nodes);
  if (!byId("dialog").open) byId("dialog").showModal();
}

async function showStudy(uid) {
  try {
    const study = await getJson(`/api/v1/studies/${encodeURIComponent(uid)}`);
    if (openUid() === uid) openDialog(personName(study.patient.name), studyBody(study));
  } catch (error) {
    openDialog("Study", [el("p", {}, error.message)]);
  }
}

async function showProblems() {
  try {
    const [problems, unreadable] = await Promise.all([getJson("/api/v1/objects/problems"), getJson("/api/v1/objects/unreadable")]);
    const line = (at, text, uid) => el("li", {}, `${dateTime(at)}: ${text}`, uid && el("span", { class: "dim" }, uid));
    const list = (items, none) => (items.length ? el("ul", { class: "plain" }, ...items) : el("p", {}, none));
    openDialog("Problems", [
      ...part("Objects that cannot be read", list(unreadable.map((o) => line(o.received_at, o.reason.text, o.sop_instance_uid)), "None.")),
      ...part("Objects in conflict, doubled or left out", list(problems.map((p) => line(p.at, p.reason.text, p.sop_instance_uid ?? p.study_uid)), "None.")),
    ]);
  } catch (error) {
    openDialog("Problems", [el("p", {}, error.message)]);
  }
}

const openUid = () => /^#study=([0-9.]{1,64})$/.exec(location.hash)?.[1] ?? null;
function refreshDialog() { if (byId("dialog").open && openUid()) showStudy(openUid()); }
function followHash() { if (openUid()) showStudy(openUid()); else if (byId("dialog").open) byId("dialog").close(); }

// ---- uploads ----

/** Files of what was dropped, folders walked through. */
async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return [...transfer.files];
  return (await Promise.all(entries.map(filesOf))).flat();
}

async function filesOf(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return files;
    for (const child of some) files.push(...await filesOf(child));
  }
}

function send(files) {
  if (files.length === 0) return;
  const form = new FormData();
  for (const file of files) form.append("file", file, file.name);
  const request = new XMLHttpRequest();
  request.open("POST", "/api/v1/uploads");
  request.responseType = "json";
  const told = files.length === 1 ? files[0].name : `${files.length} files`;
  byId("sending").hidden = false;
  byId("sent").hidden = true;
  byId("sending-text").textContent = `Sending ${told}…`;
  byId("progress").value = 0;
  request.upload.onprogress = (event) => { if (event.lengthComputable) byId("progress").value = event.loaded / event.total; };
  request.upload.onload = () => { byId("sending-text").textContent = `${told}: sent, being stored…`; byId("progress").removeAttribute("value"); };
  byId("cancel").onclick = () => request.abort();
  request.onload = () => showSent(request.status, request.response ?? {});
  request.onerror = () => showSent(0, { detail: "The connection broke. What was stored stays; send it again." });
  request.onabort = () => showSent(0, { detail: "Cancelled. What was stored before stays." });
  request.send(form);
}

function showSent(status, answer) {
  byId("sending").hidden = true;
  byId("sent").hidden = false;
  const ok = status === 200 || status === 202;
  const count = (number, word) => (number ? `${number} ${word}` : "");
  const counted = [count(answer.stored, "stored"), count(answer.duplicates, "here already"), count(answer.conflicts, "in conflict"),
    count(answer.refused, "refused")].filter(Boolean).join(", ");
  byId("sent-text").textContent = ok ? `Done: ${counted}.` : `Not done. ${answer.detail ?? `Tez answered ${status}.`}`;
  const files = answer.files ?? [];
  const order = ["refused", "conflict", "duplicate", "stored"];
  const shown = [...files].sort((a, b) => order.indexOf(a.verdict) - order.indexOf(b.verdict)).slice(0, VERDICTS_SHOWN_MAX);
  const items = shown.map((file) => el("li", { class: file.verdict }, el("b", {}, capital(file.verdict)), ` ${file.name}`,
    file.reason && el("span", { class: "dim" }, file.reason.text)));
  if (files.length > shown.length) items.push(el("li", {}, `… and ${files.length - shown.length} more`));
  byId("verdicts").replaceChildren(...items);
  refresh();
}

function wireUpload() {
  const drop = byId("drop");
  for (const id of ["files", "folder"]) {
    byId(id).onchange = (event) => { send([...event.target.files]); event.target.value = ""; };
  }
  drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    send(await droppedFiles(event.dataTransfer));
  };
  // A file dropped beside the area must not replace the page.
  window.ondragover = (event) => event.preventDefault();
  window.ondrop = (event) => event.preventDefault();
}

// ---- start ----

wireUpload();
byId("more").onclick = () => { view.limit = Math.min(view.limit + PAGE_STUDIES, 1000); refresh(); };
byId("show-read").onclick = () => { view.withRead = !view.withRead; refresh(); };
byId("problems-button").onclick = showProblems;
byId("close").onclick = () => byId("dialog").close();
byId("dialog").onclose = () => { if (openUid()) history.replaceState(null, "", location.pathname); };
window.onhashchange = followHash;
setInterval(() => {
  for (const node of document.querySelectorAll("[data-elapsed]")) node.textContent = ago(node.dataset.elapsed);
}, 1_000);
setInterval(poll, POLL_MS);
refresh();
listen();
showService();
followHash();
