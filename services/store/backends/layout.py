"""How a version is laid out for its size: spread over machines, compressed, in memory or on disk.

Nothing of it is part of what a version is: the same items, vectors and graph may be laid out otherwise elsewhere. What
a search has to know of it lies beside the version. `docs/scale.md` says what to choose.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Quantisation(BaseModel):
    """Compressed copies of the vectors, which a search walks in place of the whole ones.

    Attributes:
        kind: `scalar`, a byte a dimension (a quarter of the room); `binary`, a bit a dimension (a 32nd), for
            vectors of several hundred dimensions.
        rescore: score what was found by the whole vectors, so that the scores are exact and only the choice is
            approximate.
        oversampling: for every neighbour that is asked for, so many are looked at before they are scored again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["scalar", "binary"]
    rescore: bool = True
    oversampling: Annotated[float, Field(ge=1, le=100)] = 2.0


class Layout(BaseModel):
    """The layout of a version.

    Attributes:
        vectors_on_disk: whole vectors are read from the disk as they are needed.
        graph_on_disk: the graph too; slow unless the disk is fast or the system caches it.
        quantisation: compressed copies in memory; None without.
        shards: parts of a server's collection, which its nodes share; None leaves it to the server, which makes
            one for each of its nodes.
        replicas: copies of each part, on nodes of their own.
        write_consistency: copies that must have a point before it counts as written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vectors_on_disk: bool = False
    graph_on_disk: bool = False
    quantisation: Quantisation | None = None
    shards: Annotated[int, Field(ge=1, le=1024)] | None = None
    replicas: Annotated[int, Field(ge=1, le=32)] = 1
    write_consistency: Annotated[int, Field(ge=1, le=32)] = 1

    @model_validator(mode="after")
    def _as_many_copies_as_must_have_it(self) -> Self:
        if self.write_consistency > self.replicas:
            raise ValueError(
                f"write_consistency is {self.write_consistency}, and there are {self.replicas} replicas"
            )
        return self
