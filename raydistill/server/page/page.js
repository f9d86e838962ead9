// The page: what is typed is scored a moment later; answers that came too late are dropped.

import { count, make, score } from "./elements.js";
import { explanation } from "./explanation.js";
import { ask, setToken } from "./server.js";
import { draw, json, MOST_ROWS, ranked, rowsOf, summary, tsv } from "./table.js";

const TYPING_MS = 200; // after the last key
const ADDRESS_MS = 600; // browsers limit how often an address is changed
const PATIENCE_MS = 3000; // then it is said why an explanation takes long
const LOOK_MS = 30_000; // for a new bundle, while the page is seen
const MOST_KEPT = 100; // explanations
const LONG_LINK = 8000; // characters that some programs cut

const at = (id) => document.getElementById(id);
const opened = new Set(); // keys of rows
const explanations = new Map(); // promises by bundle, query and title
let info = { bundle: "", single_texts: false };
let scored = null; // the last answer, with what was asked: query, rows, threshold, bundle
let running = new AbortController();
let typing = 0, writing = 0, numRows = MOST_ROWS;
let wanted = []; // titles (by line) that a link has opened

const typed = () => at("titles").value.split(/\r\n|\r|\n/).filter((line) => line.trim());
const shown = () => (at("as-typed").checked ? scored.rows : ranked(scored.rows));

// The bundle.

async function look() {
  try {
    await tell(await ask("info"));
  } catch (problem) {
    fail(problem);
  }
}

async function tell(found) {
  const before = info.bundle;
  info = found;
  const made = [`Bundle ${info.bundle}`, `loaded ${loadedAt(info.loaded_at)}`,
    `relevant from ${score(info.threshold)}`];
  at("bundle").textContent = made.join(" · ");
  at("query-field").hidden = info.single_texts;
  const columns = info.title_columns ?? [];
  at("titles-label").textContent = info.single_texts ? "Texts" : "Titles";
  if (columns.length > 1)
    at("titles-hint").textContent = `One a line: ${columns.join(", ")}, with spaces between them.`;
  if (before !== info.bundle) await takeUp(before);
}

function loadedAt(text) {
  const time = new Date(text);
  return Number.isNaN(time.valueOf()) ? text : time.toLocaleString();
}

async function takeUp(before) {
  if (before) {
    at("notice").textContent = `A new bundle was taken up: ${info.bundle}, in place of ${before}.`;
    if (scored?.bundle !== info.bundle) schedule(0);
  }
  await offerExamples();
}

async function offerExamples() {
  const found = await ask("examples").catch(() => []);
  const items = found.map((example) => {
    const name = example.query || example.titles[0];
    const button = make("button", { type: "button" }, make("span", { text: name }), " ",
      make("span", { class: "of", text: count(example.titles.length, "title", "titles") }));
    button.addEventListener("click", () => fill(example));
    return make("li", {}, button);
  });
  at("example-list").replaceChildren(...items);
  at("examples").hidden = !items.length;
}

function fill({ query, titles }) {
  at("query").value = query;
  at("titles").value = titles.join("\n");
  opened.clear();
  schedule(0);
  (info.single_texts ? at("titles") : at("query")).focus();
}

// Scores.

function schedule(delay_ms = TYPING_MS) {
  clearTimeout(typing);
  typing = setTimeout(run, delay_ms);
}

async function run() {
  running.abort(); // its answer would be of other texts
  running = new AbortController();
  const { signal } = running, query = at("query").value, titles = typed();
  remember();
  if (!titles.length || !(query.trim() || info.single_texts)) return clear();
  at("results").setAttribute("aria-busy", "true");
  try {
    const answer = await ask("score", { body: { query, titles }, signal });
    if (signal.aborted) return;
    show(query, titles, answer);
    if (answer.bundle !== info.bundle) look();
  } catch (problem) {
    if (!signal.aborted) fail(problem);
  } finally {
    if (!signal.aborted) at("results").removeAttribute("aria-busy");
  }
}

function show(query, titles, answer) {
  const { threshold, bundle } = answer, rows = rowsOf(titles, answer);
  scored = { query, rows, threshold, bundle };
  for (const line of wanted) if (rows[line]) opened.add(rows[line].key);
  wanted = [];
  numRows = MOST_ROWS;
  at("error").hidden = at("empty").hidden = at("token-field").hidden = true;
  at("scored").classList.remove("stale");
  at("scored").hidden = false;
  at("summary").textContent = summary(rows, threshold);
  redraw();
}

function redraw() {
  const rows = shown(), asTyped = at("as-typed").checked;
  at("rank-heading").textContent = asTyped ? "No." : "Rank";
  draw(at("rows"), rows.slice(0, numRows), { threshold: scored.threshold, asTyped, opened, explain });
  const rest = rows.length - numRows;
  at("more").hidden = rest <= 0;
  at("more").textContent = `Show ${count(Math.min(rest, MOST_ROWS), "more title", "more titles")} of ` +
    rest.toLocaleString("en");
}

function clear() {
  scored = null;
  at("scored").hidden = at("error").hidden = true;
  at("empty").hidden = false;
  at("results").removeAttribute("aria-busy");
  at("summary").textContent = "";
  const hasTitles = typed().length > 0, hasQuery = at("query").value.trim() !== "";
  at("empty-text").textContent = info.single_texts
    ? "Paste texts, one a line. Scores follow as you type."
    : hasTitles ? "Type a query: a title's score is for a query."
      : hasQuery ? "Paste titles, one a line."
        : "Type a query and paste titles, one a line. Scores follow as you type.";
}

/** Say what went wrong; scores of before stay, and look as such. */
function fail(problem) {
  if (!("status" in problem)) throw problem;
  if (problem.status === 401) at("token-field").hidden = false;
  at("error-text").textContent = `${problem.message}.`;
  at("error-hint").textContent = scored ? `${words(problem.hint)}The scores below are of before.`
    : words(problem.hint);
  at("error").hidden = false;
  at("scored").classList.add("stale");
}

const words = (hint) => (hint ? `${hint[0].toUpperCase()}${hint.slice(1)}. ` : "");

// Explanations.

async function explain(row, cell) {
  const { query, bundle } = scored;
  const wait = make("p", { class: "hint", role: "status", text: "Explaining." });
  cell.replaceChildren(wait);
  const timer = setTimeout(() => {
    wait.textContent = "Explaining. The first explanation on a machine takes a minute or more: " +
      "the functions that read texts are compiled.";
  }, PATIENCE_MS);
  try {
    const found = await explained(bundle, query, row.title);
    cell.replaceChildren(explanation(found, { isSingle: info.single_texts }));
    if (found.bundle !== bundle) { // taken up meanwhile
      explanations.clear();
      look();
    }
  } catch (problem) {
    if (!("status" in problem)) throw problem;
    const error = make("p", { class: "error", role: "alert" });
    error.textContent = `${problem.message}. ${words(problem.hint)}`;
    cell.replaceChildren(error);
  } finally {
    clearTimeout(timer);
  }
}

function explained(bundle, query, title) {
  const key = JSON.stringify([bundle, query, title]);
  if (!explanations.has(key)) {
    const found = ask("explain", { body: { query, title } });
    found.catch(() => explanations.delete(key)); // to be tried again
    explanations.set(key, found);
    if (explanations.size > MOST_KEPT) explanations.delete(explanations.keys().next().value);
  }
  return explanations.get(key);
}

// The case in the address, and copies of it.

function address() {
  const parts = new URLSearchParams();
  if (at("query").value) parts.append("q", at("query").value);
  const titles = typed();
  for (const title of titles) parts.append("t", title);
  if (at("as-typed").checked) parts.append("order", "typed");
  const lines = (scored?.rows ?? []).filter((row) => opened.has(row.key)).map((row) => row.at);
  if (lines.length) parts.append("open", lines.join(","));
  return parts.size ? `#${parts}` : location.pathname + location.search;
}

function remember() {
  clearTimeout(writing);
  writing = setTimeout(() => history.replaceState(null, "", address()), ADDRESS_MS);
}

function restore() {
  const parts = new URLSearchParams(location.hash.slice(1));
  at("query").value = parts.get("q") ?? "";
  at("titles").value = parts.getAll("t").join("\n");
  at("as-typed").checked = parts.get("order") === "typed";
  wanted = (parts.get("open") ?? "").split(",").filter(Boolean).map(Number);
  opened.clear();
}

/** Copy, and say so on the button. A page that is not of https or localhost has no clipboard. */
async function copy(button, text, note = "") {
  const name = button.dataset.name ?? (button.dataset.name = button.textContent);
  let isDone = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    isDone = copySelected(text);
  }
  button.textContent = isDone ? `Copied${note}` : "Could not copy";
  setTimeout(() => { button.textContent = name; }, note ? 6000 : 2000);
}

function copySelected(text) {
  const before = document.activeElement;
  const area = make("textarea", { class: "hidden", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  before?.focus();
  return isDone;
}

function copyLink({ currentTarget }) {
  clearTimeout(writing);
  history.replaceState(null, "", address());
  const num = location.href.length;
  copy(currentTarget, location.href,
    num > LONG_LINK ? `: ${num.toLocaleString("en")} characters, which some programs cut` : "");
}

// Wiring.

at("form").addEventListener("submit", (event) => { event.preventDefault(); schedule(0); });
for (const id of ["query", "titles"]) at(id).addEventListener("input", () => schedule());
at("token").addEventListener("change", () => { setToken(at("token").value); look(); schedule(0); });
at("again").addEventListener("click", () => { look(); schedule(0); });
at("clear").addEventListener("click", () => fill({ query: "", titles: [] }));
at("as-typed").addEventListener("change", () => { redraw(); remember(); });
at("rows").addEventListener("toggled", remember);
at("more").addEventListener("click", () => {
  const first = numRows;
  numRows += MOST_ROWS;
  redraw();
  at("rows").querySelectorAll("tr.row button[aria-controls]")[first]?.focus();
});
at("copy-tsv").addEventListener("click", ({ currentTarget }) => copy(currentTarget, tsv(scored.query, shown())));
at("copy-json").addEventListener("click", ({ currentTarget }) =>
  copy(currentTarget, json(scored.query, shown(), scored)));
at("copy-link").addEventListener("click", copyLink);
addEventListener("hashchange", () => { restore(); schedule(0); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
setInterval(() => { if (!document.hidden && at("error").hidden) look(); }, LOOK_MS);

restore();
await look();
schedule(0);
