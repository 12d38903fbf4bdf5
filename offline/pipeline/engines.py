"""Which engine does the shards of a run, by configuration."""

from typing import Annotated

from pydantic import Field

from offline.configs.section import Section
from offline.pipeline.engine_kind import EngineKind
from offline.pipeline.shards import IN_PROCESS, Engine


class EngineConfig(Section):
    """Where samples are written, and texts embedded and labelled. No figure of a run hangs on it.

    Attributes:
        kind: `process`, this one; or `ray`, the actors of a Ray cluster (`pip install 'retrikt[ray]'`).
        address: (ray) of the cluster that this machine belongs to, host:port or `auto`; without one, that of the
            variable `RAY_ADDRESS`, else a cluster of its own is started on this machine.
        actors: (ray) most of them at the same time; without a number, one for every shard that there is room for.
        threads: (ray) of torch in an actor, which asks the cluster for as many CPUs; without a number as many as
            this process has. Another number may round sums otherwise, so that a sample differs now and then.
        gpus: (ray) that an actor asks for.
    """

    kind: EngineKind = EngineKind.PROCESS
    address: str | None = None
    actors: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    gpus: Annotated[float, Field(ge=0)] = 0.0


def engine_of(config: EngineConfig) -> Engine:
    """The engine that the section names.

    Raises:
        InvalidConfig: it is Ray, which is not installed, or whose address cannot be used.
    """
    if config.kind is EngineKind.PROCESS:
        return IN_PROCESS
    from offline.pipeline.ray_cluster import check_address, check_installed
    from offline.pipeline.ray_engine import RayEngine

    check_installed()
    check_address(config.address)
    return RayEngine(config.address, config.actors, config.threads, config.gpus)
