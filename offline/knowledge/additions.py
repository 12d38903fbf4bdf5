"""What a person wants added: read, and checked as a whole before anything is written."""

import difflib
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from offline.knowledge.journal import item_keys, loose_forms
from offline.knowledge.sources import Sources
from offline.tasks.config import FieldsConfig
from offline.tasks.examples import read_items
from offline.teacher.near_duplicates import jaccard_similarity, shingles
from offline.teacher.quality import QualityConfig
from services.platform.errors import InvalidData

LONGEST_LABEL = 100
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item as it was given; `where` says in which row, for messages."""

    where: str
    text: str
    pair: str | None
    label: str | None

    @property
    def shown(self) -> str:
        text = self.text if len(self.text) <= 60 else f"{self.text[:60]}…"
        return f"{self.where} ({text!r})"

    def labelled(self, label: str) -> "NewItem":
        return replace(self, label=label)


def read_additions(path: Path, fields: FieldsConfig) -> list[NewItem]:
    """The rows of a JSON-lines, CSV or Parquet file with the columns of the task's own data.

    Raises:
        InvalidData: the file is missing or empty, or a row cannot be used; the message names it.
    """
    found = [
        NewItem(where, text, pair, label) for where, text, pair, label in read_items(path, fields)
    ]
    if not found:
        raise InvalidData(f"{path} holds no row.", hint="It needs at least one.")
    return found


def checked_label(label: str, labels: Sequence[str], *, allow_new: bool) -> str:
    """A label as it is kept.

    Args:
        label: as it was given.
        labels: those of the live release.
        allow_new: it may be one that is not among them.

    Raises:
        InvalidData: it is empty, too long, not printable, or new without `allow_new`.
    """
    name = unicodedata.normalize("NFC", label).strip()
    if not name or len(name) > LONGEST_LABEL or not name.isprintable():
        raise InvalidData(
            f"The label {label[:LONGEST_LABEL]!r} cannot be used.",
            hint=f"Expected 1 to {LONGEST_LABEL} printable characters.",
        )
    if name not in labels and not allow_new:
        near = difflib.get_close_matches(name, labels, n=1)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        raise InvalidData(
            f"The label {name!r} is none of the live release's {len(labels)} labels.",
            hint=f"{meant}Say --new-labels to make it one.",
        )
    return name


def without_duplicates(
    items: Sequence[NewItem], keys: Sequence[str], *, skip: bool
) -> tuple[list[NewItem], int]:
    """The items that are not knowledge yet, and how many others there were.

    Args:
        items: in order.
        keys: of the knowledge, by id.
        skip: leave out what is knowledge already, instead of refusing it.

    Raises:
        InvalidData: two of the items are one text; or one is knowledge already, without `skip`.
    """
    there = {key: identity for identity, key in reversed(list(enumerate(keys)))}
    mine: dict[str, NewItem] = {}
    doubles, kept, known = [], [], []
    for item, key in zip(items, item_keys(*_columns(items)), strict=True):
        if key in mine:
            doubles.append(f"{item.shown} says what {mine[key].where} says")
        elif key in there:
            known.append(f"{item.shown} is item {there[key]}")
        else:
            kept.append(item)
        mine.setdefault(key, item)
    if doubles:
        raise InvalidData(
            f"The same text is given twice: {_list(doubles)}.",
            hint="Texts are compared without case and spaces; give each once.",
        )
    if known and not skip:
        raise InvalidData(
            f"{len(known)} of {len(items)} texts are knowledge already: {_list(known)}.",
            hint="Relabel an item with `retrikt knowledge relabel`, or leave such texts out with "
            "--skip-duplicates.",
        )
    return kept, len(known)


def check_against_held_out(items: Sequence[NewItem], sources: Sources) -> list[str]:
    """Warnings about texts that held-out rows are measured on.

    Raises:
        InvalidData: a text is one of the test split, whose figures would then mean nothing.
    """
    test = sources.split("test")
    if test is None:
        return ["the task's data is not here, so texts were not compared with the test split"]
    inside = set(loose_forms(test["text"].to_pylist(), test["text_pair"].to_pylist()))
    loose = loose_forms(*_columns(items))
    same = [item.shown for item, form in zip(items, loose, strict=True) if form in inside]
    if same:
        raise InvalidData(
            f"{len(same)} of {len(items)} texts are rows of the test split: {_list(same)}.",
            hint="What the test split measures must not be looked up; take the rows out of one of the two.",
        )
    warnings = []
    near = list(_near(items, test))
    if near:
        warnings.append(
            f"{len(near)} texts are worded nearly like a row of the test split: {_list(near)}"
        )
    validation = sources.split("validation")
    if validation is None:
        return [*warnings, "the validation rows are not here, so the gate measures nothing on them"]
    keys = item_keys(*_columns(items))
    held = set(item_keys(validation["text"].to_pylist(), validation["text_pair"].to_pylist()))
    both = [item.shown for item, key in zip(items, keys, strict=True) if key in held]
    if both:
        warnings.append(
            f"{len(both)} texts are validation rows, which the gate then leaves out: {_list(both)}"
        )
    return warnings


def _near(items: Sequence[NewItem], test: pa.Table) -> Iterator[str]:
    """Items with nearly the wording of a test row; only rows that share a sequence are compared."""
    rows = [
        shingles(f"{text}{pair or ''}")
        for text, pair in zip(test["text"].to_pylist(), test["text_pair"].to_pylist(), strict=True)
    ]
    by_shingle: dict[str, list[int]] = defaultdict(list)
    for row, found in enumerate(rows):
        for shingle in found:
            by_shingle[shingle].append(row)
    least = QualityConfig().jaccard
    for item in items:
        own = shingles(f"{item.text}{item.pair or ''}")
        sharing = {row for shingle in own for row in by_shingle.get(shingle, ())}
        if any(jaccard_similarity(own, rows[row]) >= least for row in sharing):
            yield item.shown


def _columns(items: Sequence[NewItem]) -> tuple[list[str], list[str | None]]:
    return [item.text for item in items], [item.pair for item in items]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (
        f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else ""
    )
