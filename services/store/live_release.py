"""Which store version the live release searches, read again only when the live pointer has changed."""

import os
from threading import Lock

from services.platform.errors import VersionNotFound
from services.releases.directory import LIVE, ReleaseDirectory

LIVE_NAME = "live"
"""Stands for the live release's version wherever a version is named; no version is called so."""

_Mark = tuple[int, int, int]


class LiveRelease:
    """Follows the live pointer of a releases directory; may be called from several threads."""

    def __init__(self, releases: ReleaseDirectory) -> None:
        self._releases = releases
        self._lock = Lock()
        self._seen: tuple[_Mark, str] | None = None

    def version(self) -> str:
        """The version's name. Raises VersionNotFound where nothing is live, CorruptArtifact."""
        if (version := self.version_or_none()) is None:
            raise VersionNotFound(
                "No release is live yet, and so no version is.",
                hint="Activate a release, or name a version; GET /v1/versions lists them.",
            )
        return version

    def version_or_none(self) -> str | None:
        """The version's name, or None where nothing is live. Raises CorruptArtifact."""
        # The pointer is replaced by rename: a new one is another file.
        try:
            stat = os.stat(self._releases.root / LIVE)  # noqa: PTH116
        except FileNotFoundError:
            return None
        mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        with self._lock:
            if self._seen is None or self._seen[0] != mark:
                pointer = self._releases.live()
                if pointer is None:
                    return None
                self._seen = (mark, self._releases.get(pointer.release).store_version)
            return self._seen[1]
