"""A file of JSON lines that is written beside the work, and never grows beyond its limit."""

import errno
import fcntl
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import structlog

log = structlog.get_logger(__name__)

_WAITING = 1024


class LineLog:
    """Appends to a file; a full one becomes `NAME.1`, that one `NAME.2`, and the oldest goes.

    A thread of its own writes, so that a slow disk holds nothing up. What it cannot write (a full disk,
    too much at once) is lost and told. The files are their owner's alone. For one process, or for
    several that all know of each other (`shared`) and take turns by a lock on the file.

    Attributes:
        lost: lines that were not written.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        files: int,
        shared: bool = False,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the thread; the file is made with its first line.

        Args:
            path: of the file; its folder is made where it is missing.
            max_bytes: of one file.
            files: that are kept, the one that is written included.
            shared: whether other processes write to it as well.
            on_lost: called for each line that was not written.
        """
        self.lost = 0
        self._shared = shared
        self._on_lost = on_lost
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._queue: queue.Queue[Mapping[str, Any] | None] = queue.Queue(_WAITING)
        self._file: BinaryIO | None = None
        self._failing = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="line-log")
        self._thread.start()

    def write(self, line: Mapping[str, Any]) -> None:
        """Have a line written, soon; never waits and never raises."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self._lose()

    def close(self) -> None:
        """Write what waits and stop."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                self._append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            except OSError as error:
                self._lose()
                self._let_go()
                if not self._failing:
                    log.warning("line_log_fails", path=str(self._path), reason=str(error))
                self._failing = True
            else:
                self._failing = False
        self._let_go()

    def _append(self, line: bytes) -> None:
        if not self._shared:
            self._put(line)
            return
        with self._turn():
            try:
                self._put(line)
            finally:
                # Whose turn is next may rename it.
                self._let_go()

    def _put(self, line: bytes) -> None:
        if self._file is None:
            self._file = self._open()
        if self._file.tell() + len(line) > self._max_bytes and self._file.tell() > 0:
            self._let_go()
            self._rotate()
            self._file = self._open()
        # Unbuffered: whoever reads the file meets whole lines, and a killed process loses none.
        start = self._file.tell()
        if (written := self._file.write(line)) != len(line):
            # A nearly full disk takes a part; the next line must not be joined to it.
            self._file.truncate(start)
            raise OSError(errno.ENOSPC, f"{written} of {len(line)} bytes were written")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The time in which no other process writes or renames; a lock ends with its process."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(lock_of(self._path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _open(self) -> BinaryIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        file = os.fdopen(descriptor, "ab", buffering=0)
        end = file.seek(0, os.SEEK_END)
        if end > 0 and os.pread(descriptor, 1, end - 1) != b"\n":
            # Whoever wrote last was killed over it.
            file.write(b"\n")
        return file

    def _rotate(self) -> None:
        names = [self._path, *(rotated(self._path, number) for number in range(1, self._files))]
        names[-1].unlink(missing_ok=True)
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)

    def _lose(self) -> None:
        self.lost += 1
        self._on_lost()

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def rotated(path: Path, number: int) -> Path:
    """The name that a full file gets: 1 is the youngest."""
    return path.with_name(f"{path.name}.{number}")


def lock_of(path: Path) -> Path:
    """The file that is held for each line where several processes write."""
    return path.with_name(f"{path.name}.lock")
