/** Elements and numbers as people read them. Texts only ever become text nodes, never markup. */

/**
 * An element with attributes and children; strings become text, null and false are left out.
 * Attributes that are null or false are left out too.
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute.startsWith("on")) made.addEventListener(attribute.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(attribute, value);
  }
  made.append(...children.filter((child) => child !== null && child !== false));
  return made;
}

/** A bar that fills `share` (0 to 1) of its width. The number stands beside it, so it is hidden from readers. */
export function bar(share, kind = "") {
  const filled = element("span", { class: "filled" });
  // Through the object model: a style attribute would be inline style, which the page's policy forbids.
  filled.style.setProperty("--share", String(Math.min(1, Math.max(0, share))));
  return element("span", { class: `bar ${kind}`.trim(), "aria-hidden": "true" }, filled);
}

const PERCENT = new Intl.NumberFormat("en", {
  style: "percent",
  minimumFractionDigits: 1,
  maximumFractionDigits: 1,
});
const WHOLE_PERCENT = new Intl.NumberFormat("en", { style: "percent" });
const INTEGER = new Intl.NumberFormat("en");

/** 0.9312 → 93.1%; what would round to zero without being zero is told as such. */
export function percent(value) {
  if (value > 0 && value < 0.0005) return "<0.1%";
  return PERCENT.format(value);
}

export function wholePercent(value) {
  return WHOLE_PERCENT.format(value);
}

export function integer(value) {
  return INTEGER.format(value);
}

/** 438964 → 0.44 million. */
export function millions(value) {
  if (value < 10_000) return integer(value);
  const number = value / 1e6;
  return `${number.toFixed(number < 10 ? 2 : 1)} million`;
}

export function cosine(value) {
  return value.toFixed(2).replace("-", "−");
}

/** 0.4213 → +0.42; a weight for or against. */
export function signed(value) {
  const rounded = value.toFixed(2);
  return value < 0 ? rounded.replace("-", "−") : `+${rounded}`;
}

export function milliseconds(seconds) {
  const value = seconds * 1000;
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;
}
