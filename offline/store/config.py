"""Where a task's store versions go, and how they are searched."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from offline.configs.section import Section
from services.store.backends.base import HnswParameters
from services.store.backends.layout import Layout


class StoreConfig(Section):
    """The store.

    Attributes:
        backend: `edge`, in the task's directory, or `server`, a Qdrant server or cluster.
        url: of the server.
        hnsw: parameters of a version's graph; others make another version, and so another release.
        layout: how versions are laid out for their size, see `docs/scale.md`. Another one is no other release:
            `retrikt rebuild --store-only` puts the live knowledge file into a version of it.
    """

    # What a release is made of does not depend on where its store version is kept.
    backend: Annotated[Literal["edge", "server"], Field(exclude=True)] = "edge"
    url: Annotated[str, Field(exclude=True)] = "http://localhost:6333"
    hnsw: HnswParameters = HnswParameters()
    layout: Annotated[Layout, Field(exclude=True)] = Layout()

    @model_validator(mode="after")
    def _one_directory_is_one_machine(self) -> Self:
        layout = self.layout
        if self.backend == "edge" and (layout.shards is not None or layout.replicas > 1):
            raise ValueError("shards and replicas are for the backend server; edge has neither")
        return self
