"""The journal of a task's edits: what persons added to its knowledge, took out of it, or labelled anew.

    runs/<task>/edits.jsonl     one edit a line, the oldest first

An edit is written here before its release is added, and stays, so that nothing a person did is lost when a
run makes new knowledge. Which edits are in force is not said here: the manifest of each release names those that
its knowledge holds, and a run applies the live release's edits to what it made. So going back to an older
release also goes back to its edits.

Items are told by key, a hash of their text whatever its case and spaces: another run has other ids, and the text of an
item that was taken out need not be kept for it.
"""

import hashlib
import unicodedata
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from offline.tasks.held_out import forms
from services.platform.durable_files import replacing
from services.platform.errors import CorruptArtifact

JOURNAL = "edits.jsonl"

Key = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AddedItem(_Record):
    """An item that was added.

    Attributes:
        label: that the person gave it; None leaves the labeller's soft label as it is.
        probabilities: by the labeller, by label; None where there was none.
        generator: identity of the one that wrote the text for the label; None where a person gave both. The
            probabilities are then the item's soft label.
        labeller: identity of the one that the probabilities are by, where it is another than the edit's: one that
            was fitted for the edit, and is asked no more.
        nearest: of a generator's text, the cosine to the most similar one that was known.
    """

    text: str
    text_pair: str | None = None
    label: str | None = None
    probabilities: dict[str, float] | None = None
    generator: str | None = None
    labeller: str | None = None
    nearest: float | None = None

    @property
    def key(self) -> str:
        return item_keys([self.text], [self.text_pair])[0]


class RelabelledItem(_Record):
    """An item that was given another label; `probabilities` as those of `AddedItem`."""

    key: Key
    label: str
    probabilities: dict[str, float] | None = None


class Edit(_Record):
    """One edit.

    Attributes:
        id: `e-` and 12 hexadecimal digits of the hash of the rest.
        made_at: ISO 8601, UTC.
        after: the edits that were in force before it, the oldest first.
        labeller: identity of the labeller that gave the probabilities; None for none.
        added: items; one of these three is not empty.
        removed: keys of items.
        relabelled: items by key.
        purge: whether the removed texts are to be deleted from older releases too, and whether they are.
    """

    id: str
    made_at: str
    after: tuple[str, ...] = ()
    labeller: str | None = None
    added: tuple[AddedItem, ...] = ()
    removed: tuple[Key, ...] = ()
    relabelled: tuple[RelabelledItem, ...] = ()
    purge: Literal["asked", "done"] | None = None

    @classmethod
    def now(
        cls,
        after: Sequence[str],
        *,
        labeller: str | None = None,
        added: Sequence[AddedItem] = (),
        removed: Sequence[str] = (),
        relabelled: Sequence[RelabelledItem] = (),
        purge: bool = False,
    ) -> "Edit":
        """An edit that is made now."""
        edit = cls(
            id="",
            made_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            after=tuple(after),
            labeller=labeller,
            added=tuple(added),
            removed=tuple(removed),
            relabelled=tuple(relabelled),
            purge="asked" if purge else None,
        )
        digest = hashlib.sha256(edit.model_dump_json().encode()).hexdigest()
        return edit.model_copy(update={"id": f"e-{digest[:12]}"})


class Journal:
    """The journal in a task's directory. Whoever writes holds the lock of the task's runs."""

    def __init__(self, task_directory: Path) -> None:
        self.path = task_directory / JOURNAL

    def read(self) -> list[Edit]:
        """Every edit, the oldest first. Raises CorruptArtifact where a line cannot be read."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for number, line in enumerate(lines, start=1):
            try:
                found.append(Edit.model_validate_json(line))
            except ValidationError as error:
                raise CorruptArtifact(
                    f"{self.path} line {number} is no edit: {error.errors()[0]['msg']}.",
                    hint="Restore the file: edits that are lost in it are lost in the next run.",
                ) from error
        return found

    def named(self, ids: Sequence[str]) -> list[Edit]:
        """The edits with these ids, in their order. Raises CorruptArtifact where one is missing."""
        by_id = {edit.id: edit for edit in self.read()} if ids else {}
        missing = [identity for identity in ids if identity not in by_id]
        if missing:
            raise CorruptArtifact(
                f"{self.path} does not hold the edit {missing[0]}, which the live release is made with.",
                hint="Restore the file from where the release came from.",
            )
        return [by_id[identity] for identity in ids]

    def append(self, edit: Edit) -> None:
        """Add an edit. Raises CorruptArtifact, OSError: nothing was added."""
        self._write([*self.read(), edit])

    def finish_purge(self, keys: Collection[str]) -> int:
        """Take the texts with these keys out of all edits, and note their purge as done.

        Returns:
            How many items were taken out.
        """
        wanted, kept, dropped = set(keys), [], 0
        for edit in self.read():
            added = tuple(item for item in edit.added if item.key not in wanted)
            dropped += len(edit.added) - len(added)
            done = edit.purge == "asked" and wanted.issuperset(edit.removed)
            update = {"added": added, "purge": "done" if done else edit.purge}
            kept.append(edit.model_copy(update=update))
        if self.path.exists():
            self._write(kept)
        return dropped

    def _write(self, edits: Sequence[Edit]) -> None:
        with replacing(self.path) as file:
            for edit in edits:
                file.write(edit.model_dump_json(exclude_defaults=True).encode() + b"\n")


def item_keys(texts: Sequence[str], pairs: Sequence[str | None] | None) -> list[str]:
    """What items are told by: SHA-256 of each text (and second text), whatever its case and spaces.

    Punctuation and signs count: `C++` and `C#` are two texts.
    """
    forms_of = [
        _form(text) if pair is None else f"{_form(text)}\x00{_form(pair)}"
        for text, pair in zip(texts, pairs or [None] * len(texts), strict=True)
    ]
    return [hashlib.sha256(form.encode()).hexdigest() for form in forms_of]


def loose_forms(texts: Sequence[str], pairs: Sequence[str | None] | None) -> list[str]:
    """What texts are compared with the test split by; see `offline.tasks.held_out.forms`."""
    table = pa.table(
        {
            "text": pa.array(texts, pa.string()),
            "text_pair": pa.array(pairs or [None] * len(texts), pa.string()),
        }
    )
    return forms(table)


def _form(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())
