"""Where a task's store versions go, and how they are searched."""

from typing import Annotated, Literal

from pydantic import Field

from offline.configs.section import Section
from services.store.backends.base import HnswParameters


class StoreConfig(Section):
    """The store.

    Attributes:
        backend: `edge`, in the task's directory, or `server`, a Qdrant server or cluster.
        url: of the server.
        hnsw: parameters of a version's graph; others make another version, and so another release.
    """

    # What a release is made of does not depend on where its store version is kept.
    backend: Annotated[Literal["edge", "server"], Field(exclude=True)] = "edge"
    url: Annotated[str, Field(exclude=True)] = "http://localhost:6333"
    hnsw: HnswParameters = HnswParameters()
