"""Holding the test split apart: neither its file nor one of its rows comes in as another split.

Two sources are the same where they lead to the same file (through links, `..` or another spelling),
where two files have the same content, or where they name the same rows of a hub's data set. What no name
or hash shows (the test rows in another format, in part, in another order) is seen by the texts.
"""

from collections.abc import Sequence

import pyarrow as pa

from offline.tasks.config import DataConfig
from offline.tasks.normal_form import letters_and_digits
from services.platform.errors import InvalidData
from services.platform.file_hash import hash_file

HINT = (
    "Nothing may be fitted on the test split. Where the only held-out file is called validation, name it"
    " under task.data.test alone."
)


def check_sources(data: DataConfig) -> None:
    """Refuse a task whose test split is also given as another split.

    Raises:
        InvalidData: two splits are the same; the message says how that was seen.
    """
    for split in ("train", "validation", "unlabelled"):
        source = getattr(data, split)
        if source is None:
            continue
        how = _same(source, data.test, data)
        if how is not None:
            raise InvalidData(
                f"The {split} split and the test split are the same: {source} and {data.test} {how}.",
                hint=HINT,
            )


def without_test_rows(table: pa.Table, test: pa.Table, *, split: str) -> tuple[pa.Table, int]:
    """The rows whose text is not in the test split, and how many were left out.

    Args:
        table: rows of a split, as `read_split` gives them.
        test: the test split's.
        split: name of the split, for messages.

    Raises:
        InvalidData: there were rows, and all of them are in the test split.
    """
    kept = rows_outside(table, test)
    if table.num_rows and not kept:
        raise InvalidData(f"Every text of the {split} split is in the test split too.", hint=HINT)
    return table.take(pa.array(kept, pa.int64())), table.num_rows - len(kept)


def rows_outside(table: pa.Table, other: pa.Table) -> list[int]:
    """Rows of `table`, ascending, whose text (and second text) is not in `other`; see `forms`."""
    known = set(forms(other))
    return [row for row, form in enumerate(forms(table)) if form not in known]


def forms(table: pa.Table) -> list[str]:
    """What each row's text is compared by."""
    texts: Sequence[str] = table["text"].to_pylist()
    pairs: Sequence[str | None] = table["text_pair"].to_pylist()
    return [letters_and_digits(text, pair) for text, pair in zip(texts, pairs, strict=True)]


def _same(source: str, other: str, data: DataConfig) -> str | None:
    """How two sources are the same, as the end of a sentence; None where nothing says so."""
    if source == other:
        return "have one name"
    if source.startswith("hf:") or other.startswith("hf:"):
        return None  # Two spellings of one data set are seen by their rows.
    path, its_path = data.path(source), data.path(other)
    if not (path.is_file() and its_path.is_file()):
        return None  # Reading it says what is wrong.
    if path.samefile(its_path):
        return f"are one file ({path.resolve()})"
    if path.stat().st_size == its_path.stat().st_size and hash_file(path) == hash_file(its_path):
        return "have the same content"
    return None
