"""Shards on a Ray cluster: a Ray Data pool of actors, each of which loads what the work needs once.

An actor that dies is started again and its shard done anew. An error of the work itself ends the run, as it would here.
The cluster's machines need the same RetriKT, and the task's directory under the same path; what they lack, or have
otherwise, is an error and never another result.
"""

import json
import logging
import os
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from offline.pipeline.code_hash import code_hash
from offline.pipeline.shards import AnyShard, Work
from services.platform import errors
from services.platform.errors import (
    EngineUnavailable,
    IncompatibleArtifacts,
    InvalidConfig,
    RetriktError,
)

_NUMBER, _RESULT, _ERROR = "number", "result", "error"
_KNOCK_SECONDS = 10.0


def check_installed() -> None:
    """Raises InvalidConfig where Ray is not installed."""
    if find_spec("ray") is None:
        raise InvalidConfig(
            "The engine is ray, and Ray is not installed.",
            hint="Install it, `pip install 'retrikt[ray]'`, or leave --engine out.",
        )


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
            EngineUnavailable: the cluster cannot be reached, or its actors cannot be kept alive.
            IncompatibleArtifacts: a machine of the cluster has another version of this code.
            RetriktError: what the work raises, as it would here; RuntimeError for what nobody has foreseen.
        """
        if not shards:
            return
        import ray
        import ray.data
        import torch
        from ray.exceptions import RayError

        threads = self.threads or torch.get_num_threads()
        started = _connect(self.address)
        try:
            _quiet(ray.data.DataContext.get_current())
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
                    code_hash(type(work).__module__),
                    threads,
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
            raise EngineUnavailable(
                f"Ray gave up: {lines[-1] if lines else type(error).__name__}",
                hint="Finished shards are kept: run the same command again.",
            ) from error
        finally:
            if started:
                ray.shutdown()


class _Actor:
    """Does shards on a machine of the cluster.

    What goes wrong is handed back as a row: of an error Ray would keep no more than its text.

    Args:
        work: what is done.
        shards: all of them; rows are numbers of theirs.
        code: hash of its code where the run was started.
        threads: of torch.
    """

    def __init__(self, work: Work[Any], shards: Sequence[Any], code: str, threads: int) -> None:
        self._work, self._shards = work, shards
        self._code, self._threads = code, threads
        self._do: Callable[[Any], pa.Table] | None = None

    def __call__(self, rows: pa.Table) -> pa.Table:
        (number,) = rows["id"].to_pylist()
        result, error = None, None
        try:
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

    def _start(self) -> Callable[[Any], pa.Table]:
        import torch

        torch.set_num_threads(self._threads)
        if code_hash(type(self._work).__module__) != self._code:
            raise IncompatibleArtifacts(
                f"The RetriKT on {os.uname().nodename} has other code than the one that started the run.",
                hint="Install the same version on every machine of the cluster.",
            )
        return self._work.start()


def _connect(address: str | None) -> bool:
    """Connect to the cluster, or start one; whether it is this call's to end."""
    import ray

    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    wanted = address or os.environ.get("RAY_ADDRESS")
    try:
        _knock(wanted)
        ray.init(
            address=address,
            include_dashboard=False
            if address is None and "RAY_ADDRESS" not in os.environ
            else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise EngineUnavailable(
            f"The Ray cluster {wanted!r} cannot be reached: {error}",
            hint="Check engine.address, or leave it out for a cluster on this machine.",
        ) from error
    return True


def _knock(address: str | None) -> None:
    """Raises OSError where an address of a host and a port takes no connection: Ray itself tries for minutes."""
    host, separator, port = (address or "").removeprefix("ray://").rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


def _quiet(context: Any) -> None:
    """Progress is the run's own to show."""
    # Asked for by the argument of the same name, it would be told as a warning.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _described(error: Exception) -> dict[str, str | None]:
    if isinstance(error, RetriktError):
        return {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
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
