/**
 * A text in the address: only in the part after `#`, which browsers never send to a server, and only
 * when somebody asks for it.
 */

const LONGEST = 8_000;

/** The texts in the address: none, one, or the two of a pair. */
export function textsInAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  return ["text", "pair"].map((name) => given.get(name)).filter((text) => text !== null);
}

/** Take the text out of the address; the page stays. */
export function clearAddress() {
  if (location.hash !== "") history.replaceState(null, "", location.pathname + location.search);
}

/**
 * Put texts into the address and the clipboard.
 *
 * @param {string[]} texts one, or the two of a pair
 * @returns {Promise<string>} what came of it, for people
 */
export async function copyLink(texts) {
  const fragment = new URLSearchParams();
  fragment.set("text", texts[0]);
  if (texts.length > 1) fragment.set("pair", texts[1]);
  // `+` for a space is a form's habit that not every reader of an address knows.
  const hash = `#${fragment.toString().replaceAll("+", "%20")}`;
  if (hash.length > LONGEST) return "This text is too long for a link.";
  history.replaceState(null, "", hash);
  try {
    await navigator.clipboard.writeText(location.href);
    return "Copied. The link holds the text.";
  } catch {
    // No clipboard without https, or not allowed: the address is there to be copied by hand.
    return "The address above now holds the text.";
  }
}
