"""A task's directory with two releases and their store versions, and a store service on it."""

import shutil
from pathlib import Path
from typing import Any

from key_table import KEYS, bearer
from tiny_release import write_release

from services.releases.directory import ReleaseDirectory
from services.releases.manifest import ReleaseManifest
from services.store.backends.edge import EdgeBackend
from services.store.knowledge_file import iterate_points, version_manifest
from services.store.settings import StoreSettings

__all__ = ["KEYS", "bearer", "settings", "write_task"]


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
