"""The knowledge items of a release, as a person looks for them."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from offline.knowledge.journal import item_keys
from services.platform.errors import NotFound, ReleaseNotFound
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import KNOWLEDGE, ReleaseManifest, refuse_purged
from services.store.knowledge_file import Knowledge, read_knowledge
from services.store.knowledge_schema import ORIGINS


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items are meant: those that fit everything that is given.

    Attributes:
        labels: one of these; an item's label is the one that it was written for or given.
        origins: one of these.
        contains: its text (or second text) holds this, whatever the case.
        keys: one of these; see `offline.knowledge.journal.item_keys`.
    """

    labels: Collection[str] = ()
    origins: Collection[str] = ()
    contains: str | None = None
    keys: Collection[str] = ()

    def __bool__(self) -> bool:
        return bool(self.labels or self.origins or self.contains or self.keys)

    @property
    def keys_alone(self) -> bool:
        """Whether it names items by nothing but their keys."""
        return bool(self.keys) and not (self.labels or self.origins or self.contains)


def labelled_by_persons(table: pa.Table) -> list[bool]:
    """Which items of a knowledge file's table have a label that a person gave.

    A sample's label is what it was written for; it is told by its score `nearest`, which an item loses when it is
    relabelled.
    """
    columns = (table[name].to_pylist() for name in ("label", "origin", "quality"))
    return [
        label is not None and not (origin == "generated" and "nearest" in dict(quality or ()))
        for label, origin, quality in zip(*columns, strict=True)
    ]


def _check_known(kind: str, wanted: Collection[str], known: Collection[str]) -> None:
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            meant = f"Did you mean {near[0]!r}? " if near else ""
            listed = ", ".join(sorted(known))
            raise NotFound(f"No item has the {kind} {name!r}.", hint=f"{meant}There are {listed}.")


class Items:
    """The items of one release; an item's id is its row.

    Attributes:
        release: the release.
        directory: where its files are.
        knowledge: its knowledge file's content.
    """

    def __init__(self, release: ReleaseManifest, directory: Path) -> None:
        """Read them.

        Raises:
            ReleasePurged: they were deleted on request.
            CorruptArtifact: the knowledge file is damaged.
        """
        refuse_purged(release)
        self.release = release
        self.directory = directory
        self.knowledge: Knowledge = read_knowledge(directory / KNOWLEDGE)
        table = self.knowledge.table
        self.texts: list[str] = table["text"].to_pylist()
        self.pairs: list[str | None] = table["text_pair"].to_pylist()
        self.labels: list[str | None] = table["label"].to_pylist()
        self.origins: list[str] = table["origin"].to_pylist()

    @classmethod
    def of(cls, task_directory: Path, release: str | None = None) -> "Items":
        """Those of a release; of the live one where none is named.

        Raises:
            ReleaseNotFound: there is no such release, or none is live.
        """
        releases = ReleaseDirectory(task_directory / "releases")
        if release is None:
            pointer = releases.live()
            if pointer is None:
                raise ReleaseNotFound(
                    f"No release in {releases.root} is live.",
                    hint="Make one with `retrikt run CONFIG`.",
                )
            release = pointer.release
        return cls(releases.get(release), releases.path(release))

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def keys(self) -> list[str]:
        """What the items are told by, whatever their ids; by row."""
        return item_keys(self.texts, self.pairs)

    def matching(self, wanted: Filter) -> list[int]:
        """Ids of the items that fit. Raises NotFound where the release has no such label or origin at all."""
        _check_known("label", wanted.labels, {*self.release.labels, *filter(None, self.labels)})
        _check_known("origin", wanted.origins, ORIGINS)
        part = None if wanted.contains is None else wanted.contains.casefold()
        keys = self.keys if wanted.keys else None
        return [
            row
            for row in range(len(self))
            if (not wanted.labels or self.labels[row] in wanted.labels)
            and (not wanted.origins or self.origins[row] in wanted.origins)
            and (part is None or part in f"{self.texts[row]}\n{self.pairs[row] or ''}".casefold())
            and (keys is None or keys[row] in wanted.keys)
        ]

    def checked(self, ids: Sequence[int]) -> list[int]:
        """The ids, each once. Raises NotFound where there is no such item."""
        missing = [identity for identity in ids if not 0 <= identity < len(self)]
        if missing:
            raise NotFound(
                f"The release {self.release.release} has no item {missing[0]}; its ids are 0 to "
                f"{len(self) - 1}.",
                hint="`retrikt knowledge list` shows them. Ids are a release's own.",
            )
        return list(dict.fromkeys(ids))

    def described(self, identity: int) -> dict[str, Any]:
        """What is known of an item, for people and as JSON."""
        row = self.knowledge.table.slice(identity, 1).to_pylist()[0]
        soft = sorted(
            zip(self.release.labels, row["soft_label"], strict=True), key=lambda one: -one[1]
        )
        return {
            "id": identity,
            "text": row["text"],
            "text_pair": row["text_pair"],
            "label": row["label"],
            "origin": row["origin"],
            "generator": row["generator"],
            "labeller": row["labeller"],
            "quality": {name: round(value, 6) for name, value in row["quality"] or ()},
            "soft_label": {label: round(value, 6) for label, value in soft},
        }
