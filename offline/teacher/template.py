"""Templates of a verbaliser: what a text looks like before a language model says which label's words follow."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.platform.errors import InvalidConfig

_PLACEHOLDER = re.compile(r"\{([^{}\n]*)\}")
_DEFAULTS = {
    (False, False): "Text: {text}\nCategory:",
    (False, True): "First: {text}\nSecond: {pair}\nCategory:",
    (True, False): "Which category does the text belong to: {labels}?\n\nText: {text}\nCategory:",
    (True, True): "Which category do the two texts belong to: {labels}?\n\n"
    "First: {text}\nSecond: {pair}\nCategory:",
}


@dataclass(frozen=True, slots=True)
class Template:
    """A text with `{text}`, for a pair `{pair}`, and if need be `{labels}` in it.

    Attributes:
        parts: fixed texts and names of what stands between them, in turn; fixed texts first and last.
        listed: the labels' words, as `{labels}` names them.
    """

    parts: tuple[str, ...]
    listed: str

    @classmethod
    def of(
        cls, template: str | None, words: Sequence[str], *, pair: bool, asks: bool
    ) -> "Template":
        """A template, or the default one.

        Args:
            template: with placeholders; none for the default.
            words: of the labels.
            pair: whether there are two texts.
            asks: (default) whether the labels are listed, as an instruction-tuned encoder-decoder wants it.

        Raises:
            InvalidConfig: a placeholder is unknown or lacking.
        """
        parts = tuple(_PLACEHOLDER.split(template or _DEFAULTS[asks, pair]))
        names = parts[1::2]
        needed = ("text", "pair") if pair else ("text",)
        unknown = sorted({*names} - {*needed, "labels"})
        lacking = [name for name in needed if name not in names]
        if unknown or lacking:
            what = f"has an unknown {{{unknown[0]}}}" if unknown else f"lacks {{{lacking[0]}}}"
            raise InvalidConfig(
                f"The template {template!r} {what}.",
                hint=f"labeller.verbaliser.template holds {{{'}, {'.join(needed)}}}, and {{labels}} if need be.",
            )
        return cls(parts, ", ".join(words))

    @property
    def tail(self) -> str:
        """The last line of what stands before a label's words."""
        return self.parts[-1].rpartition("\n")[2]

    def __call__(self, text: str, pair: str | None) -> str:
        """What stands before a label's words; texts are put on one line each."""
        values = {
            "text": " ".join(text.split()),
            "pair": " ".join((pair or "").split()),
            "labels": self.listed,
        }
        return "".join(values[part] if place % 2 else part for place, part in enumerate(self.parts))
