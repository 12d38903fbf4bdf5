"""Where a task's store versions go, and how they are searched."""

from typing import Literal

from offline.configs.section import Section
from services.store.backends.base import HnswParameters


class StoreConfig(Section):
    """The store.

    Attributes:
        backend: `edge`, in the task's directory, or `server`, a Qdrant server or cluster.
        url: of the server.
        hnsw: parameters of a version's graph.
    """

    backend: Literal["edge", "server"] = "edge"
    url: str = "http://localhost:6333"
    hnsw: HnswParameters = HnswParameters()
