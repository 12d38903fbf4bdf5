"""What a store version takes on a disk, for the report."""

import tempfile
from pathlib import Path

from offline.report.summary import size_of
from offline.store.config import StoreConfig
from offline.store.publish import build_version
from services.releases.manifest import KNOWLEDGE, read_release_manifest


def version_bytes(candidate: Path, store: StoreConfig) -> int:
    """What the store version of a candidate takes on a disk; it is built for that, and goes again.

    By the embedded store, whatever it is served from. Not where versions are served from: edits may have
    left some of the candidate's texts out of what is published.
    """
    # Shards and replicas of a server's layout mean nothing to the embedded store.
    embedded = store if store.backend == "edge" else StoreConfig()
    version = read_release_manifest(candidate).store_version
    with tempfile.TemporaryDirectory(prefix="retrikt-") as nowhere:
        build_version(candidate / KNOWLEDGE, Path(nowhere), embedded)
        return size_of(Path(nowhere) / "store" / version)
