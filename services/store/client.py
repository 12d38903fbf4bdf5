"""How a student reaches the store: in its own process or over HTTP, with the same calls."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.platform.errors import (
    CorruptArtifact,
    IncompatibleArtifacts,
    StorageFull,
    StoreUnavailable,
)
from services.store.backends.base import Hits, StoreBackend, StoredItem, VersionManifest

__all__ = ["EmbeddedStoreClient", "Hits", "StoreClient", "StoredItem", "VersionManifest"]


class StoreClient(Protocol):
    """The store as a student sees it; may be called from several threads.

    Whatever keeps the store from answering is a `StoreUnavailable`.
    """

    def search(
        self,
        version: str,
        vectors: NDArray[np.float32],
        k: int,
        *,
        timeout: float | None = None,
    ) -> Hits:
        """The k nearest items of each vector (float32 (b, d), unit length).

        Args:
            timeout: seconds that the answer may take; the client's own limit where none is given.

        Raises:
            StoreUnavailable, VersionNotFound.
        """

    def items(self, version: str, ids: Sequence[int]) -> list[StoredItem]:
        """Texts of the items with these ids, in their order. Raises NotFound, StoreUnavailable."""

    def check(self, version: str, encoder_fingerprint: str) -> VersionManifest:
        """The version's manifest, once its vectors are known to be this encoder's.

        Raises:
            IncompatibleArtifacts: another encoder wrote the version.
            VersionNotFound, StoreUnavailable.
        """

    def close(self) -> None:
        """Let go of files and connections."""


class EmbeddedStoreClient:
    """A backend in the same process. `timeout` is not looked at: nothing there waits."""

    def __init__(self, backend: StoreBackend) -> None:
        self._backend = backend

    @classmethod
    def open(
        cls, directory: Path, *, knowledge: Callable[[str], Path | None] | None = None
    ) -> "EmbeddedStoreClient":
        """A client with private copies of the sealed versions in `directory` (`runs/<task>/store`).

        Args:
            knowledge: gives a version's knowledge file; a version that is absent or damaged is
                loaded from it.
        """
        from services.store.backends.edge import EdgeBackend

        return cls(EdgeBackend(directory, knowledge=knowledge))

    def search(
        self,
        version: str,
        vectors: NDArray[np.float32],
        k: int,
        *,
        timeout: float | None = None,
    ) -> Hits:
        with _unavailable_when_broken():
            return self._backend.search(version, vectors, k)

    def items(self, version: str, ids: Sequence[int]) -> list[StoredItem]:
        with _unavailable_when_broken():
            return self._backend.items(version, ids)

    def check(self, version: str, encoder_fingerprint: str) -> VersionManifest:
        with _unavailable_when_broken():
            return check_fingerprint(self._backend.manifest(version), encoder_fingerprint)

    def close(self) -> None:
        self._backend.close()


@contextmanager
def _unavailable_when_broken() -> Iterator[None]:
    try:
        yield
    except (CorruptArtifact, StorageFull) as error:
        raise StoreUnavailable(f"The store cannot answer: {error}") from error


def check_fingerprint(manifest: VersionManifest, encoder_fingerprint: str) -> VersionManifest:
    """The manifest itself. Raises IncompatibleArtifacts where another encoder wrote the version."""
    if manifest.encoder_fingerprint != encoder_fingerprint:
        raise IncompatibleArtifacts(
            f"The store version {manifest.version} was written by the encoder "
            f"{manifest.encoder_fingerprint}, this student's encoder is {encoder_fingerprint}.",
            hint="A student only reads the version that its own encoder wrote: use the version "
            "named in the student's release, or rebuild the release.",
        )
    return manifest
