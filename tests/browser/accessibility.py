"""What a reader of the page needs, measured in the browser: contrast, names, room to touch."""

from typing import Any

from playwright.sync_api import Page

LEAST_CONTRAST = 4.5
LEAST_CONTRAST_LARGE = 3.0
LEAST_CONTRAST_CONTROL = 3.0

# Contrast as WCAG 2.2 defines it, of every text that can be seen on the ground that it stands on, and of
# every field's border.
_CONTRASTS = """
() => {
  const rgba = (value) => {
    const parts = value.match(/[\\d.]+/g).map(Number);
    return { rgb: parts.slice(0, 3), alpha: parts[3] ?? 1 };
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  };
  const ground = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const { rgb, alpha } = rgba(getComputedStyle(at).backgroundColor);
      if (alpha === 1) return rgb;
      if (alpha !== 0) throw new Error(`a half transparent ground: ${at.outerHTML.slice(0, 80)}`);
    }
    throw new Error("no ground at all");
  };
  const seen = (element) =>
    element.checkVisibility({ visibilityProperty: true }) &&
    element.getBoundingClientRect().width > 1;
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (text === "" || !seen(element)) continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    found.push({
      what: text.slice(0, 60),
      kind: large ? "large" : "text",
      contrast: contrast(rgba(style.color).rgb, ground(element)),
    });
  }
  for (const field of document.querySelectorAll("textarea, input")) {
    if (!seen(field)) continue;
    const border = rgba(getComputedStyle(field).borderTopColor).rgb;
    const around = ground(field.parentElement);
    found.push({ what: field.id, kind: "control", contrast: contrast(border, around) });
  }
  return found;
}
"""


def faint(page: Page) -> list[dict[str, Any]]:
    """Texts and field borders whose contrast falls short of WCAG AA; the page must show some."""
    limits = {
        "text": LEAST_CONTRAST,
        "large": LEAST_CONTRAST_LARGE,
        "control": LEAST_CONTRAST_CONTROL,
    }
    measured = page.evaluate(_CONTRASTS)
    assert len(measured) > 5, measured
    return [entry for entry in measured if entry["contrast"] < limits[entry["kind"]]]


def accessible_nodes(page: Page) -> list[dict[str, Any]]:
    """The tree that the browser gives to a screen reader: role, name and description of every node."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    return [
        {
            "role": node["role"]["value"],
            "name": node.get("name", {}).get("value", ""),
            "description": node.get("description", {}).get("value", ""),
            "focusable": any(
                entry["name"] == "focusable" and entry["value"].get("value")
                for entry in node.get("properties", [])
            ),
        }
        for node in nodes
        if not node.get("ignored")
    ]


def wider_than_the_screen(page: Page) -> list[str]:
    """What reaches beyond the right edge; a page without any has nothing to scroll sideways to."""
    found: list[str] = page.evaluate(
        """() => {
          const width = document.documentElement.clientWidth;
          const over = [...document.querySelectorAll("body *")].filter(
            (element) =>
              element.checkVisibility() && element.getBoundingClientRect().right > width + 0.5,
          );
          if (document.documentElement.scrollWidth > width) over.push(document.documentElement);
          return over.map((element) => element.outerHTML.slice(0, 100));
        }"""
    )
    return found
