/** An explained answer, shown: the label, what it was made of, the neighbours, the time it took. */

import { bar, cosine, element, milliseconds, percent, signed, wholePercent } from "./elements.js";
import { tellDegraded } from "./release.js";

const SHOWN_LABELS = 8;
const STAGES = {
  tokenize: "Tokenizer",
  encode: "Student",
  search: "Store search",
  mix: "Mixing",
};
const ORIGINS = {
  generated: "written by the generator",
  train: "training example",
  unlabelled: "unlabelled text",
  manual: "added by hand",
};

/**
 * Fill the answer's section and show it.
 *
 * @param {HTMLElement} section
 * @param {string[]} inputs the text, or the two of a pair
 * @param {object} answer the body of an explained answer to one input
 * @param {number} roundTrip seconds, as seen from here
 * @param {(label: string) => string} nameOf a label's text for people
 * @param {(() => void)|null} askForKey reveals the field for a key; null where none would show more
 * @returns {string} the answer in a sentence, to be announced
 */
export function showAnswer(section, inputs, answer, roundTrip, nameOf, askForKey) {
  const explanation = answer.predictions[0];
  const [best] = explanation.scores;
  const part = (id) => section.querySelector(`#${id}`);

  part("answer-title").replaceChildren(
    element("span", {}, nameOf(best.label)),
    " ",
    element("span", { class: "figure" }, percent(best.score)),
  );
  part("asked").textContent = inputs.map((text) => `“${text.trim()}”`).join(" and ");
  part("degraded").replaceChildren(
    ...(answer.degraded ? [degraded(answer.degraded)] : []),
    ...(explanation.out_of_distribution ? [unlike()] : []),
  );
  part("made-of").replaceChildren(...madeOf(explanation, nameOf));
  part("labels").replaceChildren(...labels(explanation, nameOf));
  part("words").replaceChildren(...words(explanation, nameOf));
  part("neighbours").replaceChildren(
    ...neighbours(explanation, answer.degraded, nameOf, askForKey),
  );
  part("timing").replaceChildren(...timing(answer.seconds, roundTrip));
  section.hidden = false;
  return sentence(explanation, answer.degraded, nameOf);
}

function sentence(explanation, reason, nameOf) {
  const [best] = explanation.scores;
  const told = `${nameOf(best.label)}, ${percent(best.score)}.`;
  if (reason) return `${told} Without the store: ${tellDegraded(reason)}`;
  const alone = first(explanation.student);
  const unlikely = explanation.out_of_distribution ? " Unlike this task’s texts." : "";
  return (
    `${told}${unlikely} The student alone: ${nameOf(alone.label)}, ${percent(alone.score)}. ` +
    `${explanation.neighbours.length} knowledge items were looked up.`
  );
}

function degraded(reason) {
  return element(
    "div",
    { class: "notice warning" },
    element("p", { class: "notice-title" }, "Answered without the store"),
    element("p", {}, `${tellDegraded(reason)} This is what the student says alone.`),
    element("p", { class: "trace" }, reason),
  );
}

function unlike() {
  return element(
    "div",
    { class: "notice warning" },
    element("p", { class: "notice-title" }, "Unlike this task’s texts"),
    element(
      "p",
      {},
      "The items that it looked up are farther away than they are for 95 of 100 texts of this task: " +
        "the label may mean nothing.",
    ),
  );
}

/** How much of the answer is the store's, and whether that changed it. */
function madeOf(explanation, nameOf) {
  if (explanation.store === null) return [];
  const share = explanation.weight;
  const [best] = explanation.scores;
  const alone = first(explanation.student);
  const found = first(explanation.store);
  const said =
    alone.label === best.label
      ? "The student alone says the same"
      : `The student alone says ${nameOf(alone.label)}`;
  const looked =
    found.label === alone.label
      ? "and so do the items that it looked up"
      : `the items that it looked up say ${nameOf(found.label)}`;
  const joint = found.label === alone.label ? ", " : "; ";
  return [
    element(
      "p",
      {},
      `${said} (${percent(alone.score)})${joint}${looked} (${percent(found.score)}).`,
    ),
    element(
      "div",
      { class: "split" },
      bar(1 - share, "shares"),
      element("p", { class: "split-names" },
        element("span", {}, `Student ${wholePercent(1 - share)} of the answer`),
        element("span", {}, `Store ${wholePercent(share)}`),
      ),
    ),
    ...afterwards(explanation, nameOf),
  ];
}

/** What items and labels that came after the student's training made of that. */
function afterwards({ scores: [best], student, corrections }, nameOf) {
  const told = [];
  if (student[best.label] === 0) {
    told.push(
      `The student does not know ${nameOf(best.label)}: its neighbours and its words say so.`,
    );
  }
  const moved = corrections?.[best.label] ?? 0;
  if (Math.abs(moved) >= 0.005) {
    told.push(
      `Items that came after its training moved ${nameOf(best.label)} by ${signed(100 * moved)} points.`,
    );
  }
  return told.map((sentence) => element("p", { class: "hint" }, sentence));
}

/** A table of all labels, best first; beyond the first few they are shown on demand. */
function labels(explanation, nameOf) {
  const { scores, student, store } = explanation;
  const columns = store
    ? [
        ["With the store", ({ score }) => score, "answer-bar"],
        ["Student alone", ({ label }) => student[label], ""],
        ["Store alone", ({ label }) => store[label], ""],
      ]
    : [["Student alone", ({ score }) => score, "answer-bar"]];
  const rows = scores.map((entry) =>
    element("tr", { role: "row" },
      element("th", { scope: "row", role: "rowheader" }, ...labelName(entry.label, nameOf)),
      ...columns.map(([, value, kind]) =>
        element("td", { role: "cell", class: "number" }, percent(value(entry)), bar(value(entry), kind)),
      ),
    ),
  );
  const hidden = rows.slice(SHOWN_LABELS);
  for (const row of hidden) row.hidden = true;
  const table = element("table", { class: "scores", role: "table", "aria-labelledby": "labels-title" },
    element("thead", { role: "rowgroup" },
      element("tr", { role: "row" },
        element("th", { scope: "col", role: "columnheader" }, "Label"),
        ...columns.map(([name]) =>
          element("th", { scope: "col", role: "columnheader", class: "number" }, name),
        ),
      ),
    ),
    element("tbody", { role: "rowgroup", id: "label-rows" }, ...rows),
  );
  return hidden.length === 0 ? [table] : [table, moreButton(hidden, rows.length)];
}

function moreButton(hidden, count) {
  const words = { false: `Show all ${count} labels`, true: "Show fewer" };
  const button = element(
    "button",
    { type: "button", class: "quiet", "aria-expanded": "false", "aria-controls": "label-rows" },
    words.false,
  );
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") !== "true";
    for (const row of hidden) row.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
    button.textContent = words[open];
  });
  return button;
}

function labelName(label, nameOf) {
  const name = nameOf(label);
  // A name that is only the label with spaces says nothing that the label does not.
  const same = name === label || name === label.replaceAll("_", " ");
  return same ? [name] : [name, " ", element("code", {}, label)];
}

/** What each word says for the label, by the lexical index; nothing where the release has none. */
function words(explanation, nameOf) {
  if (!explanation.words || explanation.words.length === 0) return [];
  const [best] = explanation.scores;
  const strongest = Math.max(...explanation.words.map(({ weight }) => Math.abs(weight)), 1e-9);
  const items = explanation.words.map(({ word, second, weight }) =>
    element(
      "li",
      { class: "word" },
      element("span", { class: "word-text" }, second ? `${word} (second text)` : word),
      element("span", { class: "figure" }, signed(weight)),
      // Against the label: the quiet colour; the sign of the number says it too.
      bar(Math.abs(weight) / strongest, weight < 0 ? "" : "answer-bar"),
    ),
  );
  return [
    element("h3", { id: "words-title" }, "What its words say"),
    element("p", { class: "hint" },
      explanation.student[best.label] === 0
        ? `For ${nameOf(best.label)}, which came after the student’s training: by a lexical index of such labels.`
        : `For ${nameOf(best.label)}, against the mean of all labels, by the lexical index of the ` +
            "knowledge. It is part of what the student says alone.",
    ),
    element("ul", { class: "words", "aria-labelledby": "words-title" }, ...items),
  ];
}

/** The items that were looked up: text, the teacher's label, similarity, and what each weighed. */
function neighbours(explanation, reason, nameOf, askForKey) {
  const found = explanation.neighbours;
  if (found.length === 0) {
    const told = reason
      ? "Nothing: the store was not of help this time."
      : "Nothing: the store holds no items.";
    return [element("p", {}, told)];
  }
  const withoutTexts = found.every((item) => item.text === null);
  const head = [
    ["Knowledge item", "text"],
    ["Teacher’s label", "teacher"],
    ["Similarity", "number"],
    ["Weight", "number"],
  ];
  const table = element("table", { class: "items", role: "table", "aria-labelledby": "neighbours-title" },
    element("thead", { role: "rowgroup" },
      element("tr", { role: "row" },
        ...head.map(([name, kind]) =>
          element("th", { scope: "col", role: "columnheader", class: kind }, name),
        ),
      ),
    ),
    element("tbody", { role: "rowgroup" }, ...found.map((item) => neighbour(item, nameOf))),
  );
  const note = element("p", { class: "hint" },
    "The nearest items of the store, nearest first. Similarity is the cosine of the two vectors; " +
      "weight is the item’s share of what the store says.",
  );
  return withoutTexts ? [note, withheld(askForKey), table] : [note, table];
}

function neighbour(item, nameOf) {
  const teacher = first(item.labels);
  const origin = item.origin && (ORIGINS[item.origin] ?? item.origin);
  const writtenFor = item.label && item.label !== teacher.label && `meant as ${nameOf(item.label)}`;
  const about = [origin, writtenFor].filter(Boolean).join(", ");
  return element("tr", { role: "row" },
    element("td", { role: "cell", class: "text" },
      item.text === null
        ? element("span", { class: "withheld" }, `Item ${item.id}`)
        : element("span", {}, item.text),
      item.text_pair && element("span", { class: "second" }, item.text_pair),
      about && element("span", { class: "about" }, about),
    ),
    element("td", { role: "cell", class: "teacher" },
      element("span", { class: "unit", "aria-hidden": "true" }, "teacher "),
      nameOf(teacher.label),
      " ",
      element("span", { class: "figure" }, percent(teacher.score)),
    ),
    element("td", { role: "cell", class: "number" },
      element("span", { class: "unit", "aria-hidden": "true" }, "similarity "),
      cosine(item.similarity),
    ),
    element("td", { role: "cell", class: "number" },
      element("span", { class: "unit", "aria-hidden": "true" }, "weight "),
      percent(item.weight),
      bar(item.weight),
    ),
  );
}

function withheld(askForKey) {
  if (askForKey === null) {
    return element("p", { class: "withheld" }, "The store did not give their texts.");
  }
  return element("p", { class: "withheld" },
    "Their texts take a key with the permission to see texts. ",
    element("button", { type: "button", class: "quiet", onclick: askForKey }, "Enter a key"),
  );
}

function timing(seconds, roundTrip) {
  const stages = Object.entries(seconds);
  const total = stages.reduce((sum, [, value]) => sum + value, 0);
  const rows = stages.map(([stage, value]) =>
    element("li", {},
      element("span", { class: "stage" }, STAGES[stage] ?? stage),
      bar(total > 0 ? value / total : 0),
      element("span", { class: "number" }, milliseconds(value)),
    ),
  );
  return [
    element("ul", { class: "stages" }, ...rows),
    element("p", { class: "hint" },
      `${milliseconds(total)} together, for all texts that were computed in the same batch. ` +
        `Seen from this browser: ${milliseconds(roundTrip)}, with the way there and back, and the ` +
        "reading of the items’ texts.",
    ),
  ];
}

/** The most probable label of a mapping from labels to probabilities. */
function first(byLabel) {
  let best = { label: "", score: -1 };
  for (const [label, score] of Object.entries(byLabel)) {
    if (score > best.score) best = { label, score };
  }
  return best;
}
