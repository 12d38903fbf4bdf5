"""What every vector store backend does, and the plain values that pass through it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from services.platform.errors import (
    IncompatibleArtifacts,
    InvalidRequest,
    NotFound,
    VersionNotFound,
)

VERSION_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
"""A version's name is a directory, part of a collection's name and part of a path in HTTP."""

Engine = Literal["edge", "server"]
"""Whose files a snapshot holds; see `StoreBackend.save`."""

PADDING_ID = -1
"""Stands where a version holds fewer than k items; its score is minus infinity."""


class HnswParameters(BaseModel):
    """The graph that approximate search walks (Malkov and Yashunin, arXiv:1603.09320).

    Attributes:
        m: links a node.
        ef_construct: candidates looked at while a node is linked.
        ef_search: candidates looked at while a query runs; never fewer than k.
        full_scan_threshold_kb: vectors that take less room than this are scanned instead.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    m: Annotated[int, Field(ge=4, le=128)] = 16
    ef_construct: Annotated[int, Field(ge=8, le=2048)] = 128
    ef_search: Annotated[int, Field(ge=8, le=4096)] = 128
    full_scan_threshold_kb: Annotated[int, Field(ge=10)] = 1024


class ItemCounts(BaseModel):
    """How many items of each kind a version holds.

    Attributes:
        labels: items that were written for a label, or whose gold label it is, by label.
        unlabelled: items without a label of their own.
        origins: items by origin.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: dict[str, int]
    unlabelled: int
    origins: dict[str, int]


class VersionManifest(BaseModel):
    """What a store version is; sealed with it and never changed.

    Attributes:
        task: name of the task.
        version: name of the version.
        encoder_fingerprint: identity of the student encoder that wrote the vectors.
        labels: the labels, in the order of the soft labels.
        pair: whether the items are pairs of texts.
        dimensions: length of a vector.
        count: number of items; their ids are 0 to count - 1.
        knowledge_sha256: hash of the knowledge file that it was built from.
        hnsw: parameters of its graph.
        counts: its items by label and origin; None in a version that was sealed without them.
        created_at: when it was sealed; None in a manifest that has not been built yet.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    task: str
    version: Annotated[str, Field(pattern=VERSION_PATTERN)]
    encoder_fingerprint: str
    labels: tuple[str, ...]
    pair: bool = False
    dimensions: Annotated[int, Field(ge=1)]
    count: Annotated[int, Field(ge=1)]
    knowledge_sha256: str
    hnsw: HnswParameters = HnswParameters()
    counts: ItemCounts | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Points on their way into a version.

    Attributes:
        ids: int64 (n,).
        vectors: float32 (n, d), of unit length.
        payloads: n of `{"text", "text_pair", "label", "origin"}`.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    payloads: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Hits:
    """The nearest items of a batch of vectors, best first.

    Attributes:
        ids: int64 (b, k); -1 where the version holds fewer than k items.
        scores: float32 (b, k), cosine similarity; minus infinity where the id is -1.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StoredItem:
    """What the store keeps of a knowledge item beside its vector."""

    id: int
    text: str
    text_pair: str | None
    label: str | None
    origin: str


def valid_version(version: str) -> str:
    """The name itself. Raises VersionNotFound where no version can be called so."""
    if not re.fullmatch(VERSION_PATTERN, version):
        raise VersionNotFound(
            f"There is no store version {version[:80]!r}.",
            hint="Names have lower-case letters, digits, '-' and '_' only.",
        )
    return version


def check_query(manifest: VersionManifest, vectors: NDArray[np.float32], k: int) -> None:
    """Raises InvalidRequest where vectors or k do not fit the version."""
    if vectors.ndim != 2 or vectors.shape[1] != manifest.dimensions:
        raise InvalidRequest(
            f"The vectors have the shape {vectors.shape}, the store version {manifest.version} has "
            f"{manifest.dimensions} dimensions."
        )
    if k < 1:
        raise InvalidRequest(f"k is {k}, expected at least 1.")


def stored_item(identifier: int, payloads: dict[Any, dict[str, Any]], version: str) -> StoredItem:
    """The item of that id. Raises NotFound where there is none."""
    payload = payloads.get(identifier)
    if payload is None:
        raise NotFound(f"The store version {version} has no item {identifier}.")
    fields: dict[str, Any] = {
        name: payload.get(name) for name in ("text", "text_pair", "label", "origin")
    }
    return StoredItem(id=identifier, **fields)


def same_version(present: VersionManifest, manifest: VersionManifest) -> VersionManifest:
    """The version that is there, where it holds what is to be built; its items may have gone uncounted.

    Raises:
        IncompatibleArtifacts: it holds something else.
    """
    beside = {"created_at": present.created_at, "counts": present.counts}
    wanted = manifest.model_copy(update=beside)
    if wanted != present:
        differing = [name for name, value in present if getattr(wanted, name) != value]
        raise IncompatibleArtifacts(
            f"There is another store version of the name {manifest.version} already: its "
            f"{', '.join(differing)} differ.",
            hint="A version never changes: build under another name, or delete the old one.",
        )
    return present


def version_not_found(version: str) -> VersionNotFound:
    return VersionNotFound(
        f"There is no store version {version}.", hint="GET /v1/versions lists those there are."
    )


class StoreBackend(Protocol):
    """A vector store; knows nothing of HTTP and may be called from several threads.

    Attributes:
        engine: what kind of files `save` writes.
    """

    engine: Engine

    def build(self, manifest: VersionManifest, batches: Iterable[PointBatch]) -> VersionManifest:
        """Build and seal a version, which nobody sees before it is complete.

        A version that is there already and is the same is left alone.

        Returns:
            The manifest with `created_at` set.

        Raises:
            CorruptArtifact: the batches are not what the manifest says (count, ids, dimensions).
            IncompatibleArtifacts: another version has the same name.
            StorageFull, StoreUnavailable: nothing is left of what was written.
        """

    def versions(self) -> list[VersionManifest]:
        """The sealed versions, oldest first."""

    def manifest(self, version: str) -> VersionManifest:
        """The manifest of a sealed version. Raises VersionNotFound."""

    def search(
        self, version: str, vectors: NDArray[np.float32], k: int, *, exact: bool = False
    ) -> Hits:
        """The k nearest items of each vector.

        Args:
            vectors: float32 (b, d), of unit length.
            exact: compare with every item in place of walking the graph.

        Raises:
            VersionNotFound, StoreUnavailable.
            InvalidRequest: the vectors have another number of dimensions or k is below 1.
        """

    def items(self, version: str, ids: Sequence[int]) -> list[StoredItem]:
        """The items with these ids, in their order. Raises NotFound where an id is not there."""

    def delete(self, version: str) -> None:
        """Remove a version. Raises VersionNotFound."""

    def save(self, version: str, directory: Path) -> None:
        """Write a sealed version's own files into `directory`, which is made.

        Raises:
            VersionNotFound, CorruptArtifact, StorageFull.
            StoreUnavailable: also where there is no server behind, in `qdrant-client`'s in-memory mode.
        """

    def restore(self, manifest: VersionManifest, directory: Path) -> VersionManifest:
        """Make a sealed version of what `save` wrote; the files in `directory` may be used up.

        A version that is there already, holds the same and is undamaged is left alone.

        Raises:
            CorruptArtifact: the files are not that version.
            IncompatibleArtifacts: another version has the same name.
            StorageFull, StoreUnavailable: there is no such version then.
        """

    def close(self) -> None:
        """Let go of files and connections."""
