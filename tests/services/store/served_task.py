"""A task's directory with two releases and their store versions, and a store service on it."""

import shutil
from pathlib import Path
from typing import Any

from tiny_release import write_release

from services.releases.directory import ReleaseDirectory
from services.releases.manifest import ReleaseManifest
from services.store.backends.edge import EdgeBackend
from services.store.knowledge_file import iterate_points, version_manifest
from services.store.settings import StoreSettings

KEYS = {name: f"{name}-key-0123456789" for name in ("read", "text", "write")}


def bearer(name: str) -> dict[str, str]:
    """Headers of a caller with the key of that permission; `nobody` has none."""
    return {"authorization": f"Bearer {KEYS[name]}"} if name in KEYS else {}


def write_task(directory: Path) -> list[ReleaseManifest]:
    """Two releases, the first one live."""
    releases = ReleaseDirectory(directory / "releases")
    backend = EdgeBackend(directory / "store", private=directory / "private")
    added = []
    for seed in (0, 1):
        staged = directory / f"staged-{seed}"
        write_release(staged, seed=seed)
        knowledge = staged / "knowledge.parquet"
        backend.build(version_manifest(knowledge), iterate_points(knowledge))
        added.append(releases.add(staged))
        shutil.rmtree(staged)
    backend.close()
    releases.activate(added[0].release)
    return added


def settings(directory: Path, **more: Any) -> StoreSettings:
    """Of a store service on that task, with snapshots."""
    return StoreSettings(
        **{
            "directory": directory / "store",
            "releases": directory / "releases",
            "snapshots": directory / "snapshots",
            "private_directory": directory / "private",
            "access_log": False,
            **more,
        }
    )
