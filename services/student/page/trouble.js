/** What went wrong, shown: in plain words, with what can be done about it. */

import { element } from "./elements.js";

/**
 * Show an error in `place`, an alert region.
 *
 * @param {Element} place
 * @param {import("./service.js").ServiceError} error
 * @param {{retry: () => void, cut: () => void}} actions what its buttons do
 */
export function showTrouble(place, error, { retry, cut }) {
  const { title, advice, offer } = explain(error);
  const button =
    offer === "cut"
      ? element("button", { type: "button", onclick: cut }, "Cut it and classify the beginning")
      : offer === "retry"
        ? element("button", { type: "button", onclick: retry }, "Try again")
        : null;
  const trace = [
    error.code,
    error.status && `HTTP ${error.status}`,
    error.requestId && `request ${error.requestId}`,
  ].filter(Boolean);
  place.replaceChildren(
    element(
      "div",
      { class: "notice error" },
      element("p", { class: "notice-title" }, title),
      advice && element("p", {}, advice),
      button,
      trace.length > 0 && element("p", { class: "trace" }, trace.join(" · ")),
    ),
  );
}

/** Show that there is nothing to classify. */
export function showMissing(place, message) {
  place.replaceChildren(
    element("div", { class: "notice error" }, element("p", { class: "notice-title" }, message)),
  );
}

export function clearTrouble(place) {
  place.replaceChildren();
}

function explain(error) {
  switch (error.kind) {
    case "unreachable":
      return {
        title: "The service cannot be reached",
        advice: "It may have been stopped, or the connection to it is gone. Nothing was classified.",
        offer: "retry",
      };
    case "slow":
      return { title: "The service took too long", advice: error.message, offer: "retry" };
    case "foreign":
      return {
        title: "The answer is not the service's",
        advice: `${error.message} A proxy in between may know more.`,
        offer: "retry",
      };
    default:
      return explainRefusal(error);
  }
}

function explainRefusal(error) {
  switch (error.status) {
    case 401:
      return error.withKey
        ? {
            title: "This key is not known here",
            advice: "Check it, or ask whoever runs the service for another.",
            offer: null,
          }
        : {
            title: "This service asks for a key",
            advice: "Enter one above, then classify.",
            offer: null,
          };
    case 403:
      return { title: "The key does not allow this", advice: error.message, offer: null };
    case 413:
      return error.code === "text_too_long"
        ? { title: "The text is too long", advice: withoutHint(error.message), offer: "cut" }
        : { title: "Too much at once", advice: error.message, offer: null };
    case 429:
      return {
        title: "The service is busy",
        advice: `More waits than it can take. ${later(error.retryAfter)}`,
        offer: "retry",
      };
    case 503:
      return {
        title: error.code === "timed_out" ? "The service took too long" : "The service is not ready",
        advice: error.message,
        offer: "retry",
      };
    default:
      return {
        title: error.status >= 500 ? "The service failed" : "The service refused the request",
        advice: error.message,
        offer: error.status >= 500 ? "retry" : null,
      };
  }
}

/** The message without its advice to programs, which the button says better. */
function withoutHint(message) {
  return message.replace(/^inputs(\[\d+\])? has/, "It has").replace(/ Send "truncate".*$/, "");
}

function later(seconds) {
  if (seconds === null) return "Try again in a moment.";
  return `Try again in ${seconds === 1 ? "a second" : `${seconds} seconds`}.`;
}
