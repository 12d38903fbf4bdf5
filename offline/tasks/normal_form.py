"""The form in which texts are compared: letters and digits alone, in lower case."""

import re

_OTHER = re.compile(r"[\W_]+")


def letters_and_digits(text: str, pair: str | None = None) -> str:
    """`text` (and `pair`) without case, spaces and punctuation.

    Two texts with the same form count as the same text: when rows of the test split are kept out,
    when copies of training texts are counted, and when distinct texts are.
    """
    form = _OTHER.sub("", text.lower())
    return form if pair is None else f"{form}\x00{_OTHER.sub('', pair.lower())}"
