"""The student's log of knowledge gaps, read: each text once, with how often and why it was kept."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from offline.tasks.normal_form import letters_and_digits
from services.platform.errors import InvalidData

# The texts of the marks that redaction leaves, `[email]` and its like, say nothing by themselves.
_LEAST_LETTERS = 3


@dataclass(slots=True)
class Gap:
    """A text that the store knew little about.

    Attributes:
        text, pair: as it was kept first.
        asked: how often it was kept.
        signs: `far`, `differ`: how often each was seen.
        labels: what was answered, and how often.
        alone: first labels of the student and of the store where these differed, and how often.
        similarity: of the nearest item, the least seen; None where there was none.
    """

    text: str
    pair: str | None
    asked: int = 0
    signs: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    alone: Counter[tuple[str, str]] = field(default_factory=Counter)
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class GapsRead:
    """What logs hold.

    Attributes:
        gaps: distinct texts, the most asked first.
        lines: that were read.
        skipped: lines that are none of the log's, as the last one of a process that was killed.
    """

    gaps: list[Gap]
    lines: int
    skipped: int


def read_gaps(paths: Iterable[Path]) -> GapsRead:
    """The texts in logs and in the full files beside them (`NAME.1` …), those that differ in case and punctuation
    alone as one.

    Raises:
        InvalidData: there is no such log, or none of its lines is one.
    """
    found: dict[str, Gap] = {}
    lines = skipped = 0
    for line in _lines(paths):
        lines += 1
        row = _row(line)
        if row is None:
            skipped += 1
            continue
        text, pair = row["text"], row.get("text_pair")
        form = letters_and_digits(text, pair)
        if len(form) < _LEAST_LETTERS:
            skipped += 1
            continue
        _add(found.setdefault(form, Gap(text, pair)), row)
    if lines and not found:
        raise InvalidData(
            "None of the lines is one of the log of knowledge gaps.",
            hint="Name the file of RETRIKT_STUDENT_GAP_LOG.",
        )
    gaps = sorted(found.values(), key=lambda gap: (-gap.asked, gap.text))
    return GapsRead(gaps, lines, skipped)


def _add(gap: Gap, row: Mapping[str, Any]) -> None:
    gap.asked += 1
    gap.signs.update(row["signs"])
    gap.labels[row["label"]] += 1
    if "differ" in row["signs"]:
        gap.alone[row["student"], row["store"]] += 1
    similarity = row["similarity"]
    if similarity is not None and (gap.similarity is None or similarity < gap.similarity):
        gap.similarity = similarity


def _lines(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        files = [*_full_files(path), *([path] if path.is_file() else [])]
        if not files:
            raise InvalidData(
                f"There is no log of knowledge gaps at {path}.",
                hint="Serve with RETRIKT_STUDENT_GAP_LOG set to a file; it is made with its first line.",
            )
        for file in files:
            with file.open("rb") as opened:
                yield from opened


def _full_files(path: Path) -> list[Path]:
    """Oldest first."""
    numbered = [
        (int(number), file)
        for file in path.parent.glob(f"{path.name}.*")
        if (number := file.name.removeprefix(f"{path.name}.")).isdecimal()
    ]
    return [file for _, file in sorted(numbered, reverse=True)]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(row, dict):
        return None
    texts = ("text", "label", "student", "store")
    whole = (
        all(isinstance(row.get(name), str) for name in texts)
        and isinstance(row.get("text_pair"), str | None)
        and isinstance(row.get("similarity"), float | int | None)
        and isinstance(row.get("signs"), list)
        and all(isinstance(sign, str) for sign in row["signs"])
    )
    return row if whole else None
