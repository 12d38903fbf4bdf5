"""Bodies of the store service's requests and answers."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from services.releases.directory import LivePointer
from services.releases.manifest import ReleaseManifest
from services.store.backends.base import Engine, VersionManifest
from services.store.knowledge_store import Found, Statistics
from services.store.snapshots import Snapshot

# What a float32 holds; NaN is refused by the bounds too.
Number = Annotated[float, Field(ge=-3.4e38, le=3.4e38)]

# One fault is told: a list of millions of them would take gigabytes to note them all.
ToFirstFault = FailFast()


class SearchRequest(BaseModel):
    """Vectors whose nearest items are asked for.

    Attributes:
        vectors: a batch of vectors, each of the version's number of dimensions.
        k: neighbours a vector.
        exact: compare with every item in place of walking the graph; for audits.
        with_items: answer texts, labels and origins too.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    vectors: Annotated[
        list[Annotated[list[Number], Field(min_length=1), ToFirstFault]],
        Field(min_length=1),
        ToFirstFault,
    ]
    k: Annotated[int, Field(ge=1)] = 16
    exact: bool = False
    with_items: bool = False


class Item(BaseModel):
    """What the store keeps of a knowledge item beside its vector."""

    id: int
    text: str
    text_pair: str | None
    label: str | None
    origin: str


class SearchAnswer(BaseModel):
    """The nearest items, best first.

    Attributes:
        version: the version that was searched.
        ids: k a vector; -1 where the version holds fewer than k items.
        scores: cosine similarities; null where the id is -1.
        items: in the order of `ids`, null where the id is -1; there if they were asked for.
    """

    version: str
    ids: list[list[int]]
    scores: list[list[float | None]]
    items: list[list[Item | None]] | None = None


class ItemsRequest(BaseModel):
    """Ids of the items that are looked up."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), ToFirstFault]


class ItemsAnswer(BaseModel):
    """The items, in the order of the ids."""

    version: str
    items: list[Item]


class VersionsAnswer(BaseModel):
    """The sealed versions, oldest first."""

    versions: list[VersionManifest]


class StatisticsAnswer(BaseModel):
    """Figures of a version.

    Attributes:
        version: its own name.
        items: how many it holds.
        labels: items by label: the one that they were written for, or their gold label; null where
            neither the version nor a release at hand tells.
        unlabelled: items without one; null as `labels`.
        origins: items by origin; null as `labels`.
        created_at: when it was sealed.
        age_seconds: since then.
        live: whether the live release searches it.
    """

    version: str
    items: int
    labels: dict[str, int] | None
    unlabelled: int | None
    origins: dict[str, int] | None
    created_at: datetime | None
    age_seconds: float | None
    live: bool


State = Literal["live", "previous", "refused", "purged", "pruned", "idle"]


class ReleaseAnswer(BaseModel):
    """A release.

    Attributes:
        release: its id.
        state: `live`, `previous` (a rollback goes there), `refused` (by the gate), `purged` or `pruned` (its files
            were given up, on request or by a clean-up), or `idle`.
        store_version: the version that its student searches.
        created_at: when it was added.
        items: knowledge items.
        refused_for: the gate's reasons.
    """

    release: str
    state: State
    store_version: str
    created_at: str | None
    items: int
    refused_for: tuple[str, ...]


class ReleasesAnswer(BaseModel):
    """The releases, oldest first, and the live pointer; null before the first activation."""

    releases: list[ReleaseAnswer]
    live: LivePointer | None


class SnapshotAnswer(BaseModel):
    """A snapshot.

    Attributes:
        snapshot: its name.
        version: the version that it holds.
        release: the release that it holds beside it.
        engine: the backend whose files it holds.
        items: of the version.
        bytes: of its file.
        created_at: when it was made.
    """

    snapshot: str
    version: str
    release: str | None
    engine: Engine
    items: int
    bytes: int
    created_at: datetime


class SnapshotsAnswer(BaseModel):
    """The snapshots, oldest first."""

    snapshots: list[SnapshotAnswer]


class RestoredAnswer(BaseModel):
    """What a restore brought back: a version that is served, and a release that can be activated."""

    version: VersionManifest
    release: str | None


class ErrorAnswer(BaseModel):
    """What every error looks like.

    Attributes:
        error: what was wrong, what was expected and what to do.
        error_type: as Text Embeddings Inference has it.
        code: stable, safe to match on.
    """

    error: str
    error_type: str
    code: str


def search_body(found: Found) -> dict[str, Any]:
    """A `SearchAnswer`, ready for orjson, which writes minus infinity as null."""
    hits, items = found.hits, found.items
    body: dict[str, Any] = {"version": found.version, "ids": hits.ids, "scores": hits.scores}
    if items is not None:
        body["items"] = [[items.get(number) for number in row] for row in hits.ids.tolist()]
    return body


def statistics_answer(statistics: Statistics) -> StatisticsAnswer:
    manifest, counts = statistics.manifest, statistics.counts
    return StatisticsAnswer(
        version=manifest.version,
        items=manifest.count,
        labels=counts.labels if counts else None,
        unlabelled=counts.unlabelled if counts else None,
        origins=counts.origins if counts else None,
        created_at=manifest.created_at,
        age_seconds=statistics.age_seconds,
        live=statistics.live,
    )


def releases_answer(releases: list[ReleaseManifest], live: LivePointer | None) -> ReleasesAnswer:
    return ReleasesAnswer(releases=[_release(manifest, live) for manifest in releases], live=live)


def snapshot_answer(snapshot: Snapshot) -> SnapshotAnswer:
    index = snapshot.index
    return SnapshotAnswer(
        snapshot=snapshot.name,
        version=index.version.version,
        release=index.release,
        engine=index.engine,
        items=index.version.count,
        bytes=snapshot.bytes,
        created_at=index.created_at,
    )


def _release(manifest: ReleaseManifest, live: LivePointer | None) -> ReleaseAnswer:
    state: State = "refused" if manifest.gate else "idle"
    if live is not None and manifest.release == live.release:
        state = "live"
    elif not manifest.can_serve:
        state = "purged" if manifest.purged_at is not None else "pruned"
    elif live is not None and manifest.release == live.previous:
        state = "previous"
    return ReleaseAnswer(
        release=manifest.release,
        state=state,
        store_version=manifest.store_version,
        created_at=manifest.created_at,
        items=manifest.items,
        refused_for=manifest.gate,
    )
