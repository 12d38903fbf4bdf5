"""Which version was read last: with an engine in this process, the one that is surely open still."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class LastRead:
    """Follows what is read from several threads.

    Attributes:
        last: the version that was read last, and since then no other was begun with: to open another may close it.
            None while that is not known.
    """

    def __init__(self) -> None:
        self.last: str | None = None
        self._begun = 0
        self._lock = Lock()

    @contextmanager
    def reading(self, version: str) -> Iterator[None]:
        """Around a read of a version."""
        with self._lock:
            if self.last != version:
                self.last = None
                self._begun += 1
            begun = self._begun
        read: str | None = None
        try:
            yield
            read = version
        finally:
            with self._lock:
                if begun == self._begun:
                    self.last = read
                elif self.last != version:
                    # It may have been closed by what began later, and opened again in that one's place.
                    self.last = None
