"""Long work cut into shards, and the engine that decides where each of them is done.

A shard's result depends on nothing but the shard and the work: it carries its own seed and is computed as one batch, so
that every engine gives the same, in whichever order and wherever the shards are done.
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from services.platform.durable_files import replacing

_DIGEST = hashlib.sha256().digest_size


class Shard(Protocol):
    """A part of the work. Attributes: `name`, its own among the shards of a stage, fit for a file's name."""

    @property
    def name(self) -> str: ...


AnyShard = TypeVar("AnyShard", bound=Shard)
ShardRead = TypeVar("ShardRead", bound=Shard, contravariant=True)


class Work(Protocol[ShardRead]):
    """What is done to every shard; it can be pickled, as can the shards."""

    def start(self) -> Callable[[ShardRead], pa.Table]:
        """Load what the work needs, once for each process that does it."""
        ...


class Engine(Protocol):
    """Where shards are done; it can be pickled."""

    def run(
        self, work: Work[AnyShard], shards: Sequence[AnyShard]
    ) -> Iterator[tuple[AnyShard, pa.Table]]:
        """Each shard with its result, as soon as it is there, in any order."""
        ...


@dataclass(frozen=True, slots=True)
class InProcess:
    """One shard after the other, in this process."""

    def run(
        self, work: Work[AnyShard], shards: Sequence[AnyShard]
    ) -> Iterator[tuple[AnyShard, pa.Table]]:
        """See `Engine`."""
        if shards:
            do = work.start()
            for shard in shards:
                yield shard, do(shard)


IN_PROCESS = InProcess()


def run_shards(
    engine: Engine,
    work: Work[AnyShard],
    shards: Sequence[AnyShard],
    partial: Path | None,
    done: Callable[[AnyShard], Any],
) -> list[pa.Table]:
    """The results in the order of the shards.

    Args:
        engine: does the shards.
        work: what is done.
        shards: all of them.
        partial: directory in which finished shards are kept, and those of a run that was killed are found;
            None to keep nothing.
        done: called with every shard whose result is there.
    """
    found: dict[str, pa.Table] = {}
    missing = []
    for shard in shards:
        table = kept_shard(partial, shard)
        if table is None:
            missing.append(shard)
        else:
            found[shard.name] = table
            done(shard)
    for shard, table in engine.run(work, missing):
        keep_shard(partial, shard, table)
        found[shard.name] = table
        done(shard)
    return [found[shard.name] for shard in shards]


def keep_shard(directory: Path | None, shard: Shard, table: pa.Table) -> None:
    """Keep a finished shard in `directory`, written aside and renamed, for a run that is killed later on."""
    if directory is None:
        return
    directory.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    with replacing(_path(directory, shard)) as file:
        file.write(hashlib.sha256(content.getbuffer()).digest())
        file.write(content.getbuffer())


def kept_shard(directory: Path | None, shard: Shard) -> pa.Table | None:
    """The result of a shard that `keep_shard` kept; None where there is none, or a damaged one."""
    if directory is None:
        return None
    try:
        kept = _path(directory, shard).read_bytes()
    except OSError:
        return None
    content = memoryview(kept)[_DIGEST:]
    if hashlib.sha256(content).digest() != kept[:_DIGEST]:
        return None
    return pq.read_table(pa.BufferReader(content))


def _path(directory: Path, shard: Shard) -> Path:
    return directory / f"{shard.name}.shard"
