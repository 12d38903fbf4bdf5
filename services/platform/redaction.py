"""Taking out of a text, by patterns, what may identify somebody or let somebody in.

What patterns cannot tell stays: names, addresses in words, a password that looks like a word. A redacted
text is one that can be kept with less worry, not one that says nothing about anybody.
"""

import re
import unicodedata

# Words that are joined by signs, or as in `PowerPoint`; 20 small letters behind a sign are none (`sk-…`).
_WORDS = (
    r"[_+/=-]*+(?:(?:[A-Z][a-z]{2,}+|[a-z]{1,19}+(?=[A-Z][a-z]{2})|[A-Z]?[a-z]{1,19}+(?![A-Za-z])"
    r"|[A-Z]{1,19}+(?![A-Za-z]))[_+/=-]*+)*+"
)

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
        (r"(?i)\b(authorization\s{0,8}[:=]\s{0,8})basic\s{1,8}\S++", r"\1basic [token]"),
        # Elsewhere `basic` is a word like another: what follows is base64, and no word.
        (
            rf"(?i:\bbasic)\s{{1,8}}(?!{_WORDS}(?![A-Za-z\d]))(?=[A-Za-z\d+/]{{6}})"
            r"(?:[A-Za-z\d+/]{4})++(?:[A-Za-z\d+/]{2}==|[A-Za-z\d+/]{3}=)?(?![\w+/=])",
            "basic [token]",
        ),
        # Bank accounts, and other groups of digits and letters that are written apart.
        (r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b", "[number]"),
        # Words of letters and digits: serial numbers, hashes, keys. `mp3` and `windows11` are none.
        (
            r"(?<![\w+/=-])(?=[\w+/=-]*?\d)(?=[\w+/=-]*?[^\W\d_])[\w+/=-]{10,}+",
            "[token]",
        ),
        # The same without a digit, where it is long, of more than one kind of characters, and no words.
        (
            rf"(?<![\w+/=-])(?!(?:[a-z]++|[A-Z]++|{_WORDS})(?![\w+/=-]))[A-Za-z_+/=-]{{20,}}+(?!\w)",
            "[token]",
        ),
        # Three digits and more, with what people write between them.
        (r"\+?\d(?:[ ().,/:-]{0,2}\d){2,}", "[number]"),
    )
)


def redact(text: str) -> str:
    """The text with e-mail addresses, links, numbers and tokens replaced by what they are: `[email]` …

    Characters of other widths and the like become the usual ones first (Unicode's NFKC).
    """
    text = unicodedata.normalize("NFKC", text)
    for pattern, mark in _REPLACED:
        text = pattern.sub(mark, text)
    return text
