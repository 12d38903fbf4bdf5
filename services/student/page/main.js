/** The page: a form, an answer, and what serves. */

import { showAnswer } from "./answer.js";
import { element, integer, millions } from "./elements.js";
import { clearAddress, copyLink, textsInAddress } from "./link.js";
import { showHealth, showRelease } from "./release.js";
import { classify, fetchInfo, fetchReadiness, useKey } from "./service.js";
import { clearTrouble, showMissing, showTrouble } from "./trouble.js";

const HEALTH_EVERY_MS = 30_000;

const part = (id) => document.getElementById(id);
const text = part("text");
const second = part("pair");
const key = part("key");
const trouble = part("error");
const answer = part("answer");
const announcement = part("announcement");
const health = { health: part("health"), text: part("health-text"), refused: part("refused") };

/** The body of `/info`; null while it is not known. */
let info = null;
let names = new Map();
let keyInUse = "";
let examplesShown = "[]";
let underWay = null;

part("lifeless").remove();
listen();
start();

function listen() {
  part("form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  for (const field of [text, second]) {
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!event.repeat) submit();
    });
    field.addEventListener("input", () => {
      field.removeAttribute("aria-invalid");
      part("link-told").textContent = "";
      clearAddress();
    });
  }
  part("link").addEventListener("click", shareLink);
  window.addEventListener("hashchange", followAddress);
  document.addEventListener("visibilitychange", refreshHealthIfSeen);
  setInterval(refreshHealthIfSeen, HEALTH_EVERY_MS);
}

async function start() {
  await Promise.all([refreshInfo(), refreshHealth()]);
  followAddress();
}

/** Classify what is in the form; `truncate` cuts a text that is too long. */
async function submit({ truncate } = {}) {
  const newKey = await applyKey();
  if (newKey === "refused") return;
  if (info === null) await refreshInfo();
  const missing = fields().find((field) => field.value.trim() === "");
  if (missing !== undefined) {
    // Whoever entered a key only has not forgotten the text.
    if (newKey === "accepted") missing.focus();
    else tellMissing(missing);
    return;
  }
  underWay?.abort();
  const own = new AbortController();
  underWay = own;
  answer.setAttribute("aria-busy", "true");
  const texts = fields().map((field) => field.value);
  try {
    const inputs = texts.length === 1 ? texts[0] : texts;
    const { body, roundTrip } = await classify(inputs, { truncate, signal: own.signal });
    await keepUp(body);
    if (own.signal.aborted) return;
    clearTrouble(trouble);
    const offerKey = info?.keys?.text ? askForKey : null;
    announcement.textContent = showAnswer(answer, texts, body, roundTrip, nameOf, offerKey);
    bringIntoView(answer, part("answer-title"));
  } catch (error) {
    if (!own.signal.aborted) fail(error);
  } finally {
    if (underWay === own) answer.removeAttribute("aria-busy");
  }
}

function fail(error) {
  answer.hidden = true;
  announcement.textContent = "";
  showTrouble(trouble, error, { retry: () => submit(), cut: () => submit({ truncate: true }) });
  if (error.kind === "unreachable" || error.status === 503) refreshHealth();
  if (error.status === 401 || error.status === 403) askForKey();
  else bringIntoView(trouble, trouble);
}

/** An answer may be the first to tell that another release serves, or that the store went or came. */
async function keepUp(body) {
  if (body.release !== info?.release) await refreshInfo();
  const known = health.health.dataset.state === "degraded";
  if ((body.degraded !== null) !== known) refreshHealth();
}

function fields() {
  return info?.pair ? [text, second] : [text];
}

function tellMissing(field) {
  const which = !info?.pair ? "a text" : field === text ? "the first text" : "the second text";
  showMissing(trouble, `Enter ${which} to classify.`);
  field.setAttribute("aria-invalid", "true");
  field.focus();
}

function askForKey() {
  part("key-field").hidden = false;
  key.focus();
  key.select();
}

/** Use what is in the field for a key from now on, and say what came of it. */
async function applyKey() {
  const given = key.value.trim();
  if (given === keyInUse) return "unchanged";
  keyInUse = given;
  useKey(given);
  clearTrouble(trouble);
  const error = await refreshInfo();
  return error?.status === 401 ? "refused" : "accepted";
}

/** Ask what is served; returns the error if there was one, and shows it if a key is missing. */
async function refreshInfo() {
  let failure = null;
  try {
    info = (await fetchInfo()).body;
  } catch (error) {
    info = null;
    failure = error;
    if (error.status === 401) fail(error);
  }
  const labels = info?.labels ?? [];
  names = new Map(labels.map((label, index) => [label, info.label_names[index]]));
  showRelease(part("release-facts"), info);
  describeTask();
  return failure;
}

/** A label's text for people. */
function nameOf(label) {
  return names.get(label) ?? label;
}

function describeTask() {
  const served = info?.release ? info : null;
  document.title = served ? `${served.task} · RetriKT` : "RetriKT";
  part("about").textContent = served
    ? `Task ${served.task}: one of ${integer(served.labels.length)} labels, by a student of ` +
      `${millions(served.parameters)} parameters that looks things up among ` +
      `${integer(served.items)} knowledge items.`
    : "";
  part("limit").textContent = served
    ? ` At most ${integer(served.max_input_length)} tokens${served.auto_truncate ? "; what is longer is cut" : ""}.`
    : "";
  part("title").textContent = served?.pair ? "Classify a pair of texts" : "Classify a text";
  if (info?.keys?.read) part("key-field").hidden = false;
  part("pair-field").hidden = !served?.pair;
  part("text-label").textContent = served?.pair ? "First text" : "Text";
  showExamples(served);
}

function showExamples(served) {
  const examples = (served?.examples ?? []).filter(
    (example) => Array.isArray(example) === served.pair,
  );
  const shown = JSON.stringify(examples);
  // Made anew only where they differ: one of them may have the focus.
  if (shown === examplesShown) return;
  examplesShown = shown;
  part("examples").hidden = examples.length === 0;
  part("example-list").replaceChildren(
    ...examples.map((example) => {
      const texts = Array.isArray(example) ? example : [example];
      const pick = () => {
        fill(texts);
        clearAddress();
        submit();
      };
      return element("li", {},
        element("button", { type: "button", class: "example", onclick: pick }, texts.join(" / ")),
      );
    }),
  );
}

function fill([first, other = ""]) {
  text.value = first;
  second.value = other;
  for (const field of [text, second]) field.removeAttribute("aria-invalid");
}

function followAddress() {
  const texts = textsInAddress();
  if (texts.length === 0) return;
  fill(texts);
  submit();
}

async function shareLink() {
  const missing = fields().find((field) => field.value.trim() === "");
  if (missing !== undefined) tellMissing(missing);
  else part("link-told").textContent = await copyLink(fields().map((field) => field.value));
}

async function refreshHealth() {
  try {
    showHealth(health, await fetchReadiness());
  } catch {
    showHealth(health, null);
  }
}

function refreshHealthIfSeen() {
  if (!document.hidden) refreshHealth();
}

/** Scroll to the beginning of what is shown, only where its head would be out of sight, as on a phone. */
function bringIntoView(shown, head) {
  const { top, bottom } = head.getBoundingClientRect();
  if (top < 0 || bottom > window.innerHeight) shown.scrollIntoView({ block: "start" });
}
