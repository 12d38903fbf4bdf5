"""A file of JSON lines that is written beside the work, and never grows beyond its limit."""

import errno
import os
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import structlog

log = structlog.get_logger(__name__)

_WAITING = 1024


class LineLog:
    """Appends to a file; a full one becomes `NAME.1`, that one `NAME.2`, and the oldest goes.

    A thread of its own writes, so that a slow disk holds nothing up. What it cannot write (a full disk,
    too much at once) is lost and counted. The files are their owner's alone. For one process at a time.

    Attributes:
        lost: lines that were not written.
    """

    def __init__(self, path: Path, *, max_bytes: int, files: int) -> None:
        """Start the thread; the file is made with its first line.

        Args:
            path: of the file; its folder is made where it is missing.
            max_bytes: of one file.
            files: that are kept, the one that is written included.
        """
        self.lost = 0
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
            self.lost += 1

    def close(self) -> None:
        """Write what waits and stop."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                self._append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            except OSError as error:
                self.lost += 1
                self._let_go()
                if not self._failing:
                    log.warning("line_log_fails", path=str(self._path), reason=str(error))
                self._failing = True
            else:
                self._failing = False
        self._let_go()

    def _append(self, line: bytes) -> None:
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

    def _open(self) -> BinaryIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        file = os.fdopen(descriptor, "ab", buffering=0)
        file.seek(0, os.SEEK_END)
        return file

    def _rotate(self) -> None:
        names = [self._path, *(rotated(self._path, number) for number in range(1, self._files))]
        names[-1].unlink(missing_ok=True)
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def rotated(path: Path, number: int) -> Path:
    """The name that a full file gets: 1 is the youngest."""
    return path.with_name(f"{path.name}.{number}")
