"""Taking out of a text, by patterns, what may identify somebody or let somebody in.

What patterns cannot tell stays: names, addresses in words, a password that looks like a word. A redacted
text is one that can be kept with less worry, not one that says nothing about anybody.
"""

import re

# Runs of characters are matched from their start alone (the look-behinds) and never again shorter (`++`), so
# that the time is that of reading the text, whatever is in it.
_REPLACED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), mark)
    for pattern, mark in (
        (r"(?i)\bhttps?://\S++", "[url]"),
        (r"(?<![\w.+%-])[\w.+%-]++@[\w-]++(?:\.[\w-]++)++", "[email]"),
        # A secret that is introduced as one, whatever it looks like.
        (
            r"(?i)\b(bearer|token|api[ _-]?key|secret|passwor[dt]|passwd|pwd|pin)(\s{0,8}[:=]\s{0,8})\S++",
            r"\1\2[token]",
        ),
        (r"(?i)\bbearer\s{1,8}\S++", "bearer [token]"),
        # Bank accounts, and other groups of digits and letters that are written apart.
        (r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b", "[number]"),
        # Words of letters and digits: serial numbers, hashes, keys. `mp3` and `windows11` are none.
        (
            r"(?<![\w+/=-])(?=[\w+/=-]*?\d)(?=[\w+/=-]*?[^\W\d_])[\w+/=-]{10,}+",
            "[token]",
        ),
        # Three digits and more, with what people write between them.
        (r"\+?\d(?:[ ().,/:-]{0,2}\d){2,}", "[number]"),
    )
)


def redact(text: str) -> str:
    """The text with e-mail addresses, links, numbers and tokens replaced by what they are: `[email]` …"""
    for pattern, mark in _REPLACED:
        text = pattern.sub(mark, text)
    return text
