"""The store version of one release, asked in a way that never fails a request.

A circuit breaker (Nygard, "Release It!") keeps a dead store from costing its time limit on every
request: after a few failures in a row nobody asks any more, and a thread in the background tries
until the store answers again.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from services.platform.errors import (
    IncompatibleArtifacts,
    RetriktError,
    StoreUnavailable,
    VersionNotFound,
)
from services.store.client import Hits, StoreClient, StoredItem, VersionManifest

log = structlog.get_logger(__name__)

UNAVAILABLE = "store_unavailable"
TIMEOUT = "store_timeout"
INCOMPATIBLE = "incompatible_store"
MISSING = "version_not_found"
FAILED = "store_error"

SEARCHED_AT_ONCE = 256
"""Vectors of one call: what the store service takes."""

LOOKED_UP_AT_ONCE = 4096
"""Ids of one call: what the store service takes."""

LEAST_SECONDS = 0.005
"""A search that has less time than this left is not begun."""


class Answer(NamedTuple):
    """What the store found, or why it found nothing; exactly one of the two is None."""

    hits: Hits | None
    degraded: str | None


class GuardedStore:
    """One store version behind its client, a time limit and a circuit breaker.

    Attributes:
        version: the store version.
        state: None while the store is asked; the reason while it is not.
    """

    def __init__(
        self,
        client: StoreClient,
        version: str,
        encoder_fingerprint: str,
        *,
        labels: Sequence[str],
        items: int,
        timeout: float,
        failures: int = 3,
        retry_seconds: float = 0.5,
        longest_retry_seconds: float = 5.0,
    ) -> None:
        """Guard `client`, which stays the caller's to close.

        Args:
            client: how the store is reached.
            version: the store version of the release.
            encoder_fingerprint: of the release's student.
            labels: of the release, in the order of its soft labels.
            items: rows of its soft-label matrix.
            timeout: seconds that a search may take.
            failures: in a row, after which the store is not asked any more.
            retry_seconds: until it is tried again; doubles up to `longest_retry_seconds`, after which
                texts are asked for again too.
        """
        self.version = version
        self.state: str | None = None
        self._client = client
        self._fingerprint = encoder_fingerprint
        self._labels = tuple(labels)
        self._items = items
        self._timeout = timeout
        self._allowed = failures
        self._failed = 0
        self._first_retry = retry_seconds
        self._longest_retry = longest_retry_seconds
        self._pause = retry_seconds
        self._no_texts_before = 0.0
        self._closing = threading.Event()
        self._lock = threading.Lock()

    def open(self, *, must_hold_version: bool) -> None:
        """Check once that the version is this student's.

        A store that does not answer is no error: it is asked again in the background.

        Args:
            must_hold_version: whether an answering store without the version is an error too.

        Raises:
            IncompatibleArtifacts: another encoder wrote the version, or its labels or items differ.
            VersionNotFound: the store answers but does not hold the version.
        """
        try:
            self._check()
        except IncompatibleArtifacts:
            raise
        except VersionNotFound:
            if must_hold_version:
                raise
            self._trip(MISSING)
        except StoreUnavailable:
            self._trip(UNAVAILABLE)

    def search(
        self, vectors: NDArray[np.float32], k: int, *, deadline: float | None = None
    ) -> Answer:
        """The k nearest items of each vector, or the reason why the store was not of help.

        Args:
            vectors: float32 (b, d), of unit length.
            k: neighbours a vector.
            deadline: `time.monotonic()` at which the answer is of no use any more.
        """
        if self.state is not None:
            return Answer(None, self.state)
        started = time.monotonic()
        timeout = self._timeout
        if deadline is not None:
            timeout = min(timeout, deadline - started)
            if timeout < LEAST_SECONDS:
                return Answer(None, TIMEOUT)
        try:
            hits = self._search(vectors, k, started + timeout)
        except StoreUnavailable:
            late = time.monotonic() - started >= 0.9 * timeout
            return self._failure(TIMEOUT if late else UNAVAILABLE)
        except VersionNotFound:
            return self._failure(MISSING)
        except Exception:
            # Whatever the store or its engine does, the student still answers.
            log.exception("store_search_failed", version=self.version)
            return self._failure(FAILED)
        if hits.ids.size and int(hits.ids.max()) >= self._items:
            return self._failure(INCOMPATIBLE)
        if self._failed:
            self._failed = 0
        self._pause = self._first_retry
        return Answer(hits, None)

    def texts(self, ids: Sequence[int]) -> dict[int, StoredItem]:
        """The items with these ids, as far as the store gives them within the time limit of a search.

        Texts are for explanations alone: a store that gives none is not asked for any for a while, and
        still searched.
        """
        if self.state is not None or not ids or time.monotonic() < self._no_texts_before:
            return {}
        try:
            return {item.id: item for item in self._look_up(ids, time.monotonic() + self._timeout)}
        except RetriktError as error:
            log.warning("store_items_failed", version=self.version, reason=str(error))
        except Exception:
            # As in a search: the others of the batch are answered all the same.
            log.exception("store_items_failed", version=self.version)
        self._no_texts_before = time.monotonic() + self._longest_retry
        return {}

    def close(self) -> None:
        """Stop trying in the background."""
        self._closing.set()

    def _search(self, vectors: NDArray[np.float32], k: int, deadline: float) -> Hits:
        """One call for a batch of the server; several for what is larger than the store takes."""
        parts = []
        for start in range(0, max(len(vectors), 1), SEARCHED_AT_ONCE):
            left = max(deadline - time.monotonic(), LEAST_SECONDS)
            part = vectors[start : start + SEARCHED_AT_ONCE]
            parts.append(self._client.search(self.version, part, k, timeout=left))
        if len(parts) == 1:
            return parts[0]
        return Hits(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )

    def _look_up(self, ids: Sequence[int], deadline: float) -> Iterator[StoredItem]:
        for start in range(0, len(ids), LOOKED_UP_AT_ONCE):
            left = max(deadline - time.monotonic(), LEAST_SECONDS)
            part = list(ids[start : start + LOOKED_UP_AT_ONCE])
            yield from self._client.items(self.version, part, timeout=left)

    def _failure(self, reason: str) -> Answer:
        self._failed += 1
        if self._failed >= self._allowed or reason in (MISSING, INCOMPATIBLE):
            self._trip(reason)
        return Answer(None, reason)

    def _trip(self, reason: str) -> None:
        with self._lock:
            if self.state is not None or self._closing.is_set():
                return
            self.state = reason
        log.warning("store_given_up", version=self.version, reason=reason)
        threading.Thread(target=self._retry, daemon=True, name="store-retry").start()

    def _retry(self) -> None:
        while not self._closing.wait(self._pause):
            self._pause = min(self._longest_retry, 2 * self._pause)
            try:
                self._check()
            except RetriktError as error:
                reason = _reason(error)
                if reason != self.state:
                    log.warning("store_still_away", version=self.version, reason=str(error))
                self.state = reason
            except Exception:
                log.exception("store_check_failed", version=self.version)
            else:
                # One more failure, not several, gives it up again: its searches have to prove it.
                self._failed = self._allowed - 1
                self.state = None
                log.info("store_back", version=self.version)
                return

    def _check(self) -> VersionManifest:
        manifest = self._client.check(self.version, self._fingerprint)
        if manifest.labels != self._labels or manifest.count != self._items:
            raise IncompatibleArtifacts(
                f"The store version {self.version} has {manifest.count} items and "
                f"{len(manifest.labels)} labels, its release {self._items} and "
                f"{len(self._labels)}, or their labels differ.",
                hint="Rebuild the store version from the release's knowledge file.",
            )
        return manifest


def _reason(error: RetriktError) -> str:
    match error:
        case IncompatibleArtifacts():
            return INCOMPATIBLE
        case VersionNotFound():
            return MISSING
        case StoreUnavailable():
            return UNAVAILABLE
        case _:
            return FAILED
