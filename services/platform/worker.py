"""Which of a service's several processes one is."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Worker:
    """What tells a worker from its fellows.

    Attributes:
        number: from 0; a replacement has the number of the one that it replaces.
        directory: of all the workers of a service, for as long as it runs: the files of their metrics, and
            the lock that their log lines are written under.
    """

    number: int
    directory: Path

    @property
    def log_lock(self) -> Path:
        """See `services.platform.logs.configure_logs`."""
        return log_lock(self.directory)


def log_lock(directory: Path) -> Path:
    """The file that is held for each line that workers, or their supervisor, write to the log."""
    return directory / "log.lock"
