"""The form in which texts are compared: letters and digits alone, in lower case; signs where there are no others."""

import re
import unicodedata

_OTHER = re.compile(r"[\W_]+")


def letters_and_digits(text: str, pair: str | None = None) -> str:
    """`text` (and `pair`) without case, spaces and punctuation, characters in Unicode's NFKC form.

    Two texts with the same form count as the same text: when rows of the test split are kept out,
    when copies of training texts are counted, and when distinct texts are. A text of signs alone
    keeps them: 👍 is not 👎.
    """
    form = _form(text)
    return form if pair is None else f"{form}\x00{_form(pair)}"


def has_letters_or_digits(text: str) -> bool:
    return _OTHER.fullmatch(unicodedata.normalize("NFKC", text)) is None and bool(text)


def _form(text: str) -> str:
    lower = unicodedata.normalize("NFKC", text).lower()
    return _OTHER.sub("", lower) or "".join(lower.split())
