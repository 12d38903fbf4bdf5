"""How a student reaches the store: in its own process or over HTTP, with the same calls."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.platform.errors import IncompatibleArtifacts
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

    def search(
        self,
        version: str,
        vectors: NDArray[np.float32],
        k: int,
        *,
        timeout: float | None = None,
    ) -> Hits:
        return self._backend.search(version, vectors, k)

    def items(self, version: str, ids: Sequence[int]) -> list[StoredItem]:
        return self._backend.items(version, ids)

    def check(self, version: str, encoder_fingerprint: str) -> VersionManifest:
        return check_fingerprint(self._backend.manifest(version), encoder_fingerprint)

    def close(self) -> None:
        self._backend.close()


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
