"""Work for the tests of the engines, which processes of Ray can import, too."""

import errno
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch

from services.platform.errors import CorruptArtifact


@dataclass(frozen=True)
class Number:
    """A shard."""

    number: int

    @property
    def name(self) -> str:
        return f"number-{self.number}"


@dataclass(frozen=True)
class Squares:
    """The square of a number, as many rows as the number, and the process that gave it.

    Attributes:
        killed_at: the process dies at this number, unless `marker` is there, which it leaves behind
            where that has a directory.
        damaged_at: this number is told to be damaged.
        broken_at: this number is an error that nobody has foreseen.
        full_at: this number finds the disk full.
    """

    marker: Path
    killed_at: int | None = None
    damaged_at: int | None = None
    broken_at: int | None = None
    full_at: int | None = None

    def start(self) -> Callable[[Number], pa.Table]:
        return self._square

    def _square(self, shard: Number) -> pa.Table:
        number = shard.number
        if number == self.killed_at and not self.marker.exists():
            if self.marker.parent.is_dir():
                self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.damaged_at:
            raise CorruptArtifact(f"{number} is damaged.", hint="Take another.")
        if number == self.broken_at:
            raise ZeroDivisionError(f"{number} is broken")
        if number == self.full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rows = {
            "square": [number**2] * number,
            "process": [os.getpid()] * number,
            "threads": [torch.get_num_threads()] * number,
        }
        types = [("square", pa.int64()), ("process", pa.int64()), ("threads", pa.int64())]
        return pa.table(rows, pa.schema(types))
