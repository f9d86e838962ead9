// The table of scores: a row a title, and below it what drove the score where it is asked for.

import { count, make, score, scoreBar } from "./elements.js";

export const MOST_ROWS = 1000; // drawn at once: 1,000 rows take tens of milliseconds

/** The rows of an answer: `key` stays the same for a title while other lines change. */
export function rowsOf(titles, answer) {
  const times = new Map();
  return titles.map((title, at) => {
    const time = (times.get(title) ?? 0) + 1;
    times.set(title, time);
    const found = { at, title, key: `${time} ${title}` };
    return { ...found, score: answer.scores[at], isRelevant: answer.relevant[at] };
  });
}

/** The best first; equal scores in the order of the titles. */
export function ranked(rows) {
  return [...rows].sort((one, other) => other.score - one.score || one.at - other.at);
}

/** Fill a table's body. `explain(row, cell)` fills the cell below a row of `opened` (keys). */
export function draw(body, rows, { threshold, asTyped, opened, explain }) {
  const made = document.createDocumentFragment();
  const first = asTyped ? -1 : rows.findIndex((row) => !row.isRelevant);
  rows.forEach((row, place) => {
    if (place === first) made.append(line(threshold));
    add(made, row, asTyped ? row.at : place, { threshold, opened, explain });
  });
  body.replaceChildren(made);
}

function line(threshold) {
  const text = `threshold ${score(threshold)}: titles below it are not relevant`;
  return make("tr", { class: "line", role: "row" }, make("td", { colspan: 4, role: "cell" }, make("span", { text })));
}

function add(into, row, place, { threshold, opened, explain }) {
  const id = `why-${row.at}`;
  const button = make("button", {
    type: "button", text: row.title, "aria-expanded": "false", "aria-controls": id, dir: "auto",
  });
  const shown = make("tr", { class: row.isRelevant ? "row relevant" : "row", role: "row" },
    make("td", { class: "rank", role: "cell", text: place + 1 }),
    make("td", { class: "score", role: "cell" }, make("span", { class: "value", text: score(row.score) }),
      scoreBar(row.score, threshold)),
    make("td", {
      class: "verdict", role: "cell", text: row.isRelevant ? "relevant" : "not relevant",
    }),
    make("th", { scope: "row", class: "title", role: "rowheader" }, button));
  let why = null, cell = null; // made when it is opened: most rows never are
  const set = (isOpen) => {
    button.setAttribute("aria-expanded", String(isOpen));
    if (isOpen && !why) {
      cell = make("td", { colspan: 4, role: "cell" });
      why = make("tr", { class: "why", id, role: "row" }, cell);
      shown.after(why);
    }
    why.hidden = !isOpen;
    if (isOpen) explain(row, cell);
  };
  shown.addEventListener("click", () => {
    if (String(getSelection())) return; // a title that is selected to be copied
    const isOpen = why === null || why.hidden;
    if (isOpen) opened.add(row.key);
    else opened.delete(row.key);
    set(isOpen);
    body(shown).dispatchEvent(new Event("toggled"));
  });
  into.append(shown);
  if (opened.has(row.key)) set(true);
}

const body = (row) => row.closest("tbody");

/** What is said of all titles. */
export function summary(rows, threshold) {
  const num = rows.filter((row) => row.isRelevant).length;
  return `${count(rows.length, "title", "titles")}, ${num.toLocaleString("en")} relevant ` +
    `(from ${score(threshold)})`;
}

/** The rows as tab-separated values, in the order that is shown. */
export function tsv(query, rows) {
  const plain = (text) => text.replace(/\s+/g, " ").trim();
  const lines = rows.map((row) =>
    [plain(query), plain(row.title), row.score, row.isRelevant].join("\t"));
  return ["query\ttitle\tscore\trelevant", ...lines, ""].join("\n");
}

/** The rows as JSON, with what they were scored with. */
export function json(query, rows, { bundle, threshold }) {
  const titles = rows.map(({ title, score, isRelevant }) => ({ title, score, relevant: isRelevant }));
  return JSON.stringify({ query, bundle, threshold, titles }, null, 2);
}
