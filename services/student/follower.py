"""Following the live pointer: the next release is made ready beside the one that serves."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import structlog

from services.platform.errors import RetriktError
from services.platform.memory import give_back_what_went
from services.releases.directory import LIVE, ReleaseDirectory
from services.releases.in_use import ReleaseHold

log = structlog.get_logger(__name__)


class Closeable(Protocol):
    def close(self) -> None: ...


P = TypeVar("P", bound=Closeable)


@dataclass(frozen=True, slots=True)
class Failure:
    """A release that is live but could not be served, and why."""

    release: str
    code: str
    reason: str


class ReleaseFollower(Generic[P]):
    """Serves the live release, and goes on serving it when the next one turns out broken.

    A thread looks at the live pointer a few times a second. A release that could not be made ready is
    tried again, less and less often, for as long as it is the live one. The one that serves is held, so that no
    clean-up takes it away.

    Attributes:
        serving: id of the release that serves; None before the first.
        failure: the live release, when it is not the one that serves.
        looked: set once the pointer was looked at for the first time, and what it names was tried.
    """

    def __init__(
        self,
        releases: ReleaseDirectory,
        load: Callable[[Path, bool], P],
        install: Callable[[P], P | None],
        *,
        poll_seconds: float = 0.25,
        longest_retry_seconds: float = 15.0,
    ) -> None:
        """Follow `releases`, without a thread until `start`.

        Args:
            releases: of the task.
            load: makes the release in a directory ready; told whether another one serves already.
            install: puts it in place of the one that serves, which it returns once nobody uses
                it any more.
            poll_seconds: between two looks at the pointer.
            longest_retry_seconds: between two attempts at a release that failed.
        """
        self.serving: str | None = None
        self.failure: Failure | None = None
        self.looked = threading.Event()
        self._releases = releases
        self._load = load
        self._install = install
        self._poll = poll_seconds
        self._longest_retry = longest_retry_seconds
        self._hold: ReleaseHold | None = None
        self._seen: tuple[int, int, int] | None = None
        self._retry_at = 0.0
        self._pause = poll_seconds
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Keep looking, on a thread of its own."""
        self._thread = threading.Thread(target=self._watch, daemon=True, name="release-follower")
        self._thread.start()

    def close(self) -> None:
        """Stop following. What serves stays the caller's."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        if self._hold is not None:
            self._hold.close()

    def look(self) -> None:
        """Compare the pointer with what serves and switch where they differ; never raises."""
        stamp = self._stamp()
        if stamp == self._seen and (self.failure is None or time.monotonic() < self._retry_at):
            return
        changed = stamp != self._seen
        try:
            live = self._releases.live()
            release = None if live is None else live.release
        except RetriktError as error:
            self._failed(LIVE, error, changed)
            self._seen = stamp
            return
        self._seen = stamp
        if release is None or release == self.serving:
            self.failure = None
            return
        if self._switch(release, changed):
            # Here, where nothing names the one before any more.
            give_back_what_went()

    def _switch(self, release: str, changed: bool) -> bool:
        """Whether another one was served before, and is not any more."""
        started = time.perf_counter()
        hold = None
        try:
            directory = self._releases.path(release)
            hold = ReleaseHold(directory)
            loaded = self._load(directory, self.serving is not None)
        except Exception as error:  # nothing in a release may end the one that serves
            if hold is not None:
                hold.close()
            self._failed(release, error, changed)
            return False
        before = self._install(loaded)
        held, self._hold = self._hold, hold
        previous, self.serving, self.failure = self.serving, release, None
        self._pause = self._poll
        log.info(
            "release_serves",
            release=release,
            previous=previous,
            seconds=round(time.perf_counter() - started, 3),
        )
        if before is not None:
            before.close()
        if held is not None:
            held.close()
        return before is not None

    def _failed(self, release: str, error: Exception, changed: bool) -> None:
        known = isinstance(error, RetriktError)
        code = error.code if isinstance(error, RetriktError) else RetriktError.code
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        self._pause = self._poll if changed else min(2 * self._pause, self._longest_retry)
        self._retry_at = time.monotonic() + self._pause
        if changed or self.failure is None or self.failure.reason != reason:
            log.error(
                "release_refused",
                release=release,
                serving=self.serving,
                code=code,
                reason=reason,
                exc_info=None if known else error,
            )
        self.failure = Failure(release, code, reason)

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except Exception:
                log.exception("release_follower_crashed")
            self.looked.set()
            self._stopping.wait(self._poll)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = (self._releases.root / LIVE).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
