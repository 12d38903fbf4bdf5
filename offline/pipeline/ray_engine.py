"""Shards on a Ray cluster: a Ray Data pool of actors, each of which loads what the work needs once.

An actor that dies is started again and its shard done anew, a few times; an error of the work itself ends the run,
as it would here. The cluster's machines need this RetriKT with the same libraries, which is checked, the task's
directory under the same path, and the same models.
"""

import errno
import json
import logging
import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from offline.pipeline.code_hash import code_hash
from offline.pipeline.ray_cluster import check_room, connect
from offline.pipeline.shards import AnyShard, Work
from offline.pipeline.versions import RECORDED
from services.platform import errors
from services.platform.errors import (
    IncompatibleArtifacts,
    RetriktError,
    StorageFull,
    Unavailable,
)

_NUMBER, _RESULT, _ERROR = "number", "result", "error"
_TRIES = 3
"""How often a shard is begun whose actor dies."""


@dataclass(frozen=True, slots=True)
class RayEngine:
    """See `offline.pipeline.engines.EngineConfig` for the attributes."""

    address: str | None = None
    actors: int | None = None
    threads: int | None = None
    gpus: float = 0.0

    def run(
        self, work: Work[AnyShard], shards: Sequence[AnyShard]
    ) -> Iterator[tuple[AnyShard, pa.Table]]:
        """See `offline.pipeline.shards.Engine`.

        Raises:
            Unavailable: the cluster cannot be reached, or its actors cannot be kept alive.
            IncompatibleArtifacts: a machine of the cluster has other versions of this code or its libraries.
            InvalidConfig: no machine of the cluster has room for an actor, or the address is of Ray's client.
            RetriktError: what the work raises, as it would here; RuntimeError for what nobody has foreseen.
        """
        if not shards:
            return
        import ray
        import ray.data
        import torch
        from ray.exceptions import RayError

        threads = self.threads or torch.get_num_threads()
        started = connect(self.address, threads)
        try:
            check_room(ray.nodes(), threads, self.gpus)  # type: ignore[no-untyped-call]
            _set_up(ray.data.DataContext.get_current())
            most = min(self.actors or len(shards), len(shards))
            # A block is a task: one a shard. They are there from the start: reading them would take a CPU that an actor
            # with as many threads as the machine has does not leave.
            rows = [{"id": number} for number in range(len(shards))]
            numbers = ray.data.from_items(rows, override_num_blocks=len(shards))
            found = numbers.map_batches(
                _Actor,
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(
                    min_size=1, max_size=most, max_tasks_in_flight_per_actor=2
                ),
                num_cpus=threads,
                num_gpus=self.gpus or None,
                fn_constructor_args=(
                    work,
                    tuple(shards),
                    _versions(work),
                    threads,
                    ray.remote(num_cpus=0)(_Attempts).remote(),
                ),
            )
            for batch in found.iter_batches(batch_size=1, batch_format="pyarrow"):
                table: Any = batch
                (row,) = table.to_pylist()
                if row[_ERROR] is not None:
                    raise _as_it_was(json.loads(row[_ERROR]))
                yield shards[row[_NUMBER]], _table(row[_RESULT])
        except RayError as error:
            lines = str(error).strip().splitlines()
            raise Unavailable(
                f"Ray gave up: {lines[-1] if lines else type(error).__name__}",
                hint="Every machine of the cluster needs this RetriKT and room for the models. Finished shards "
                "are kept: the same command goes on from them.",
            ) from error
        finally:
            if started:
                ray.shutdown()


class _Attempts:
    """Counts how often each shard was begun: Ray itself would try one that kills its actor for ever."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def another(self, number: int) -> int:
        """How often the shard has been begun, this time included."""
        self._counts[number] += 1
        return self._counts[number]


class _Actor:
    """Does shards on a machine of the cluster.

    What goes wrong is handed back as a row: of an error Ray would keep no more than its text.

    Args:
        work: what is done.
        shards: all of them; rows are numbers of theirs.
        versions: of its code and of the libraries where the run was started.
        threads: of torch.
        attempts: handle of the actor that counts.
    """

    def __init__(
        self,
        work: Work[Any],
        shards: Sequence[Any],
        versions: Mapping[str, str],
        threads: int,
        attempts: Any,
    ) -> None:
        self._work, self._shards = work, shards
        self._versions, self._threads = versions, threads
        self._attempts = attempts
        self._do: Callable[[Any], pa.Table] | None = None

    def __call__(self, rows: pa.Table) -> pa.Table:
        (number,) = rows["id"].to_pylist()
        result, error = None, None
        try:
            self._count(number)
            if self._do is None:
                self._do = self._start()
            result = _bytes(self._do(self._shards[number]))
        except Exception as raised:
            error = json.dumps(_described(raised))
        columns = {
            _NUMBER: pa.array([number], pa.int64()),
            _RESULT: pa.array([result], pa.large_binary()),
            _ERROR: pa.array([error], pa.string()),
        }
        return pa.table(columns)

    def _count(self, number: int) -> None:
        import ray

        attempts = ray.get(self._attempts.another.remote(number))
        if attempts > _TRIES:
            raise Unavailable(
                f"The shard {self._shards[number].name} has ended the process of {_TRIES} actors.",
                hint="They may have been short of memory: take smaller shards, or give each actor more of the machine.",
            )

    def _start(self) -> Callable[[Any], pa.Table]:
        import torch

        torch.set_num_threads(self._threads)
        here = _versions(self._work)
        other = [name for name, found in self._versions.items() if here.get(name) != found]
        if other:
            raise IncompatibleArtifacts(
                f"The machine {os.uname().nodename} has another {', '.join(other)} than the one that started the run.",
                hint="Install the same versions on every machine of the cluster.",
            )
        return self._work.start()


def _versions(work: Work[Any]) -> dict[str, str]:
    """What a result hangs on beside work and shards, by a name that a person understands."""
    code = code_hash(type(work).__module__)
    return {"RetriKT": code, **{name: version(name) for name in RECORDED}}


def _set_up(context: Any) -> None:
    """Progress is the run's own to show, and a shard may take as long as it likes."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1


def _described(error: Exception) -> dict[str, str | None]:
    if isinstance(error, RetriktError):
        return {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return {"kind": StorageFull.__name__, "message": str(error), "hint": None}
    lines = traceback.format_exception(error)
    return {"kind": None, "message": f"{type(error).__name__}: {error}", "trace": "".join(lines)}


def _as_it_was(described: Mapping[str, str | None]) -> Exception:
    """The error that the work raised, by its class where it is one of ours."""
    kind, message = described["kind"], str(described["message"])
    if kind is not None:
        found: type[RetriktError] = getattr(errors, kind, RetriktError)
        return found(message, hint=described["hint"])
    failed = RuntimeError(message)
    failed.add_note(str(described["trace"]))
    return failed


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _table(content: bytes) -> pa.Table:
    return pa.ipc.open_stream(pa.py_buffer(content)).read_all()
