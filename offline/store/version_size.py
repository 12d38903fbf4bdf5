"""What a store version takes on a disk, for the report."""

import tempfile
from pathlib import Path

from offline.store.config import StoreConfig
from offline.store.publish import build_version
from services.releases.manifest import KNOWLEDGE, read_release_manifest


def version_bytes(candidate: Path, store: StoreConfig) -> int:
    """What the store version of a candidate takes on a disk; it is built for that, and goes again.

    Not where versions are served from: edits may have left some of the candidate's texts out of what is
    published.
    """
    embedded = store.model_copy(update={"backend": "edge"})
    version = read_release_manifest(candidate).store_version
    with tempfile.TemporaryDirectory(prefix="retrikt-") as nowhere:
        build_version(candidate / KNOWLEDGE, Path(nowhere), embedded)
        files = (Path(nowhere) / "store" / version).rglob("*")
        return sum(path.stat().st_size for path in files if path.is_file())
