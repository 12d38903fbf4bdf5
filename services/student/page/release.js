/** What serves, and how it is: the release's facts and the health of the service. */

import { element, integer, millions } from "./elements.js";

const DEGRADED = {
  store_unavailable: "The store cannot be reached.",
  store_timeout: "The store did not answer in time.",
  incompatible_store: "The store’s version was not written by this student.",
  version_not_found: "The store does not hold this release’s version.",
  store_error: "The store failed.",
};

/** Why the store was of no help, as a sentence. */
export function tellDegraded(reason) {
  return DEGRADED[reason] ?? `The store was of no help (${reason}).`;
}

/** Show the facts of `/info`; null while they are not known. */
export function showRelease(facts, info) {
  const rows = info === null ? [] : releaseRows(info);
  facts.replaceChildren(
    ...rows.map(([name, ...value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, ...value)),
    ),
  );
}

function releaseRows(info) {
  if (!info.release) return [["Live", "None yet"], ["Service", info.version]];
  const rows = [
    ["Task", info.task],
    ["Live", element("code", {}, info.release)],
    ["Student", `${millions(info.parameters)} parameters`],
    ["Labels", integer(info.labels.length)],
    ["Knowledge", `${integer(info.items)} items`],
    ["Store version", element("code", {}, info.store_version)],
    ["Store", info.store === "embedded" ? "in this process" : "a service of its own"],
  ];
  const accuracy = info.metrics?.accuracy;
  if (typeof accuracy === "number") rows.push(["Accuracy measured", accuracy.toFixed(3)]);
  rows.push(["Service", info.version]);
  return rows;
}

/**
 * Show the health in the masthead, and a release that was refused.
 *
 * @param {{health: Element, text: Element, refused: Element}} places
 * @param {object|null} readiness the body of `/readyz`; null when the service cannot be reached
 */
export function showHealth(places, readiness) {
  const [state, text] = tellHealth(readiness);
  places.health.dataset.state = state;
  places.text.textContent = text;
  const refused = readiness?.refused;
  places.refused.replaceChildren(
    ...(refused
      ? [
          element("div", { class: "notice warning" },
            element("p", { class: "notice-title" }, "A newer release is not served"),
            element("p", {}, `${refused.release}: ${refused.reason}`),
            element("p", { class: "trace" }, refused.code),
          ),
        ]
      : []),
  );
}

function tellHealth(readiness) {
  if (readiness === null) return ["away", "Not reachable"];
  if (readiness.reason) return ["away", "Not ready"];
  if (readiness.degraded) return ["degraded", "Answers without the store"];
  return ["ready", "Ready"];
}
