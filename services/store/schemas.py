"""Bodies of the store service's requests and answers."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from services.store.backends.base import Hits, StoredItem, VersionManifest

# What a float32 holds; NaN is refused by the bounds too.
Number = Annotated[float, Field(ge=-3.4e38, le=3.4e38)]


class SearchRequest(BaseModel):
    """Vectors whose nearest items are asked for.

    Attributes:
        vectors: a batch of vectors, each of the version's number of dimensions.
        k: neighbours a vector.
        exact: compare with every item in place of walking the graph; for audits.
        with_items: answer texts, labels and origins too.
    """

    model_config = ConfigDict(extra="forbid")

    vectors: Annotated[list[Annotated[list[Number], Field(min_length=1)]], Field(min_length=1)]
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

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class ItemsAnswer(BaseModel):
    """The items, in the order of the ids."""

    version: str
    items: list[Item]


class VersionsAnswer(BaseModel):
    """The sealed versions, oldest first."""

    versions: list[VersionManifest]


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


def search_body(version: str, hits: Hits, items: dict[int, StoredItem] | None) -> dict[str, Any]:
    """A `SearchAnswer`, ready for orjson, which writes minus infinity as null."""
    body: dict[str, Any] = {"version": version, "ids": hits.ids, "scores": hits.scores}
    if items is not None:
        body["items"] = [[items.get(number) for number in row] for row in hits.ids.tolist()]
    return body
