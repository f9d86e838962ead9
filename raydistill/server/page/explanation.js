// What drove the score of one title: the answer of /explain as elements.

import { make, score, signed, signedBar } from "./elements.js";

const FEATURE = "match feature";
const SIDES = { "n-gram of the query": "query", "n-gram of the title": "title" };
const NUM_NGRAMS = 8; // shown at first
const LONG_WORD = 24; // characters: over a longer one, which may need two lines, stands no number
const LEAST_SHOWN = 0.0005; // a logit that is not 0.000

export function explanation(found, { isSingle }) {
  const features = found.parts.filter((part) => part.kind === FEATURE);
  const ngrams = found.parts.filter((part) => part.kind !== FEATURE);
  const most = Math.max(...found.parts.map((part) => Math.abs(part.logit)), LEAST_SHOWN);
  const texts = isSingle ? [["Text", found.title]] : [["Query", found.query], ["Title", found.title]];
  const strongest = Math.max(
    ...texts.flatMap(([, text]) => text.words.map((word) => Math.abs(word.logit))), LEAST_SHOWN);
  const lists = [];
  if (features.length) lists.push(list("Match features", features, { most, shown: features.length }));
  lists.push(list("Words and pairs of words", ngrams, { most, shown: NUM_NGRAMS }));
  return make("div", { class: "explanation" },
    sum(found, features, ngrams, { isSingle }),
    ...texts.map(([name, text]) => marked(name, text, strongest)),
    legend({ isSingle }),
    make("div", { class: "lists" }, ...lists));
}

/** How base and parts add up to the logit, and the logit to the score. */
function sum(found, features, ngrams, { isSingle }) {
  const total = (parts) => parts.reduce((whole, part) => whole + part.logit, 0);
  const of = (side) => total(ngrams.filter((part) => SIDES[part.kind] === side));
  const terms = [["start, without words", found.base]];
  if (features.length) terms.push(["match features", total(features)]);
  if (!isSingle) terms.push(["words of the query", of("query")]);
  terms.push([isSingle ? "words of the text" : "words of the title", of("title")]);
  const rounding = found.logit - found.total;
  if (Math.abs(rounding) >= LEAST_SHOWN) terms.push(["rounding to int8", rounding]);
  const scale = found.temperature === 1 ? "" : `, times temperature ${found.temperature}`;
  return make("dl", { class: "sum" },
    ...terms.map(([name, value]) => term(name, signed(value))),
    term(`logit${scale}`, `= ${signed(found.logit)}`, "whole"),
    term("score", score(found.score), "whole"));
}

function term(name, value, kind) {
  return make("div", { class: kind }, make("dt", { text: name }), make("dd", { text: value }));
}

/** A text with its words marked by their logits; spans are in code points. */
function marked(name, text, most) {
  const chars = Array.from(text.text), line = make("p", { class: "marked" });
  let at = 0;
  for (const word of text.words) {
    line.append(chars.slice(at, word.start).join(""), markedWord(word, chars, most));
    at = word.end;
  }
  line.append(chars.slice(at, text.num_read).join(""));
  const rest = chars.slice(text.num_read).join("");
  if (rest.trim()) line.append(make("s", { text: rest }));
  if (!text.words.length) line.append(make("em", { text: "no words" }));
  const block = make("div", { class: "text" }, make("h3", { text: name }), line);
  const note = notes(text, chars, rest);
  if (note) block.append(make("p", { class: "hint", text: note }));
  return block;
}

function markedWord(word, chars, most) {
  const share = Math.abs(word.logit) / most;
  const strength = Math.abs(word.logit) < LEAST_SHOWN ? 0 : share > 2 / 3 ? 3 : share > 1 / 3 ? 2 : 1;
  const sign = word.logit < 0 ? "minus" : "plus";
  const kinds = ["word", strength ? `${sign} strength-${strength}` : "", word.on_other_side ? "shared" : ""];
  const isLong = word.end - word.start > LONG_WORD;
  return make(isLong ? "span" : "ruby", { class: kinds.filter(Boolean).join(" ") },
    make("span", { text: chars.slice(word.start, word.end).join("") }),
    make(isLong ? "small" : "rt", { text: signed(word.logit, 2) }));
}

/** What is read in another way than it is written, and what is not read. */
function notes(text, chars, rest) {
  const others = text.words
    .map((word) => [chars.slice(word.start, word.end).join(""), word.read.join(" ")])
    .filter(([typed, read]) => typed.toLowerCase() !== read)
    .map(([typed, read]) => `${typed} is read as ${read}`);
  if (rest.trim()) others.push("what is struck out is too long to be read");
  return others.length ? `${[...new Set(others)].join("; ")}.` : "";
}

function legend({ isSingle }) {
  const both = isSingle ? [] : [", ", make("b", { text: "bold" }), ": the word stands in both texts"];
  return make("p", { class: "hint legend" },
    "Over a word: its part of the logit, alone and with its neighbours, without match features. ",
    make("span", { class: "word plus strength-2", text: "Solid line" }), ": raises the score, ",
    make("span", { class: "word minus strength-2", text: "dashed line" }), ": lowers it", ...both, ".");
}

function list(name, parts, { most, shown }) {
  const items = make("ol", { class: "drivers" }, ...parts.slice(0, shown).map((part) => item(part, most)));
  const block = make("div", {}, make("h3", { text: name }), items);
  const rest = parts.slice(shown);
  if (!parts.length) block.append(make("p", { class: "hint", text: "none" }));
  if (!rest.length) return block;
  const whole = signed(rest.reduce((all, part) => all + part.logit, 0));
  const more = make("button", { type: "button", text: `Show ${rest.length} more, together ${whole}` });
  more.addEventListener("click", () => {
    const first = item(rest[0], most);
    items.append(first, ...rest.slice(1).map((part) => item(part, most)));
    more.remove();
    first.tabIndex = -1;
    first.focus(); // where reading goes on
  });
  block.append(more);
  return block;
}

function item(part, most) {
  const name = [make("span", { text: part.name })];
  const told = part.kind === FEATURE ? compared(part) : SIDES[part.kind];
  if (told) name.push(" ", make("span", { class: "of", text: told }));
  if (part.note) name.push(" ", make("span", { class: "of", text: `(${part.note})` }));
  const what = make("div", { class: "what" });
  if (part.features.length > 1) what.append(members(name, part.features));
  else what.append(...name);
  return make("li", {}, what, signedBar(part.logit / most),
    make("span", { class: "amount", text: signed(part.logit) }));
}

/** A feature's value beside its average. */
function compared({ value, average }) {
  if (value === null || average === null) return "";
  return `${value.toFixed(2)} here, ${average.toFixed(2)} on average`;
}

/** The features of a family, below its name. */
function members(name, features) {
  const rows = features.map((feature) => make("li", {},
    make("span", { class: "what" }, make("span", { text: feature.text }), " ",
      make("span", { class: "of", text: compared(feature) })),
    make("span", { class: "amount", text: signed(feature.logit) })));
  return make("details", {}, make("summary", {}, ...name), make("ul", { class: "members" }, ...rows));
}
