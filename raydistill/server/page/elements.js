// DOM elements and numbers in words. Texts are set as text, never as markup.

/** An element with attributes (`text`: its text; null ones are left out) and children. */
export function make(tag, { text, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes))
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const score = (value) => value.toFixed(4);

/** A number with its sign; one that rounds to zero has none. */
export function signed(value, digits = 3) {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? "\u2212" : "+") + text;
}

export const count = (number, one, many) =>
  `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** A bar from the left, with a line at the threshold. The score stands beside it. */
export function scoreBar(value, threshold) {
  const bar = make("span", { class: "score-bar", "aria-hidden": "true" });
  const filled = make("i"), line = make("b");
  filled.style.width = `${100 * value}%`;
  line.style.left = `${100 * threshold}%`;
  bar.append(filled, line);
  return bar;
}

/** A bar to the right of the middle for what raises the score, to the left for what lowers it. */
export function signedBar(share) {
  const bar = make("span", { class: "bar", "aria-hidden": "true" });
  const filled = make("i", { class: share < 0 ? "minus" : "plus" });
  filled.style.width = `${50 * Math.min(Math.abs(share), 1)}%`;
  bar.append(filled);
  return bar;
}
