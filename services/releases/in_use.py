"""Which releases are served: whoever serves one holds a shared lock on its knowledge file for as long as it does.

The lock goes with its process, however that ends, so nobody has to tell a stale sign from a fresh one. Taking
it needs no right to write: a student holds it on a volume that is mounted read-only, too. Clean-up asks for the
lock alone and leaves a release that it does not get it for. Of a release's files this one never changes, and it is
the last that goes.

Locks must reach across the machines that share the volume, which those of local disks, NFS version 4 and
CephFS do.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import structlog

from services.releases.manifest import KNOWLEDGE

log = structlog.get_logger(__name__)


class ReleaseHold:
    """A release that this process serves, until `close`.

    The hold is taken before the release's manifest is read: what was given up before says so in its
    manifest, and what has not been is not given up while it is held.
    """

    def __init__(self, directory: Path) -> None:
        """Take it; waits the moment that clean-up takes where that is at this very release.

        A release without its knowledge file is not held: it cannot be served, as its check says.
        """
        self._file: IO[bytes] | None = None
        try:
            self._file = (directory / KNOWLEDGE).open("rb")
            fcntl.flock(self._file, fcntl.LOCK_SH)
        except OSError as error:
            # On a volume without locks clean-up gets none either, and leaves its releases alone.
            log.warning("release_not_held", release=directory.name, reason=str(error))

    def close(self) -> None:
        """Give it up; a second time does nothing."""
        if self._file is not None:
            self._file.close()


@contextmanager
def served_by_nobody(directory: Path) -> Iterator[bool]:
    """Whether no process holds the release; while the block runs, none comes to hold it.

    Where that cannot be told, somebody may.
    """
    try:
        # Some systems give the lock alone to those only who may write the file.
        file = (directory / KNOWLEDGE).open("r+b")
    except OSError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except OSError:
            alone = False
        yield alone
