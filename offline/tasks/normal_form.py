"""The form in which texts are compared: letters and digits alone, in lower case."""

import re
import unicodedata

_OTHER = re.compile(r"[\W_]+")


def letters_and_digits(text: str, pair: str | None = None) -> str:
    """`text` (and `pair`) without case, spaces and punctuation, characters in Unicode's NFKC form.

    Two texts with the same form count as the same text: when rows of the test split are kept out,
    when copies of training texts are counted, and when distinct texts are.
    """
    form = _form(text)
    return form if pair is None else f"{form}\x00{_form(pair)}"


def _form(text: str) -> str:
    return _OTHER.sub("", unicodedata.normalize("NFKC", text).lower())
