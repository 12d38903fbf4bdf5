"""Which releases are served: whoever serves one holds a shared lock on its directory for as long as it does.

The lock goes with its process, however that ends, so nobody has to tell a stale sign from a fresh one. Taking
it needs no right to write: a student holds it on a volume that is mounted read-only, too. Clean-up asks
for the lock alone and leaves a release that it does not get it for.

Locks must reach across the machines that share the volume, which those of local disks, NFS version 4 and
CephFS do.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


class ReleaseHold:
    """A release that this process serves, until `close`.

    The hold is taken before the release's manifest is read: what was given up before says so in its
    manifest, and what has not been is not given up while it is held.
    """

    def __init__(self, directory: Path) -> None:
        """Take it; waits the moment that clean-up takes where that is at this very release.

        Raises:
            FileNotFoundError: there is no such directory.
        """
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        except OSError as error:
            # Clean-up gets no lock on such a volume either, and leaves its releases alone.
            log.warning("release_not_held", release=directory.name, reason=str(error))

    def close(self) -> None:
        """Give it up; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def served_by_nobody(directory: Path) -> Iterator[bool]:
    """Whether no process holds the release; while the block runs, none comes to hold it.

    Where that cannot be told, somebody may.

    Raises:
        FileNotFoundError: there is no such directory.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)
