"""Stage `index`: every knowledge item with the student's vector, and the candidate of a release."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline.pipeline.stage import StageContext
from offline.store.config import StoreConfig
from offline.store.index import write_candidate

CANDIDATE = "candidate"


def run(inputs: Mapping[str, Path], config: StoreConfig, context: StageContext) -> dict[str, Any]:
    """Write `candidate/`: a release's files, with a manifest that has no figures yet.

    The engine's own files are made when the release is published: they differ from build to build.
    """
    directory = context.directory / CANDIDATE
    directory.mkdir()
    manifest = write_candidate(
        inputs["knowledge"] / "knowledge.parquet",
        inputs["student"] / "bundle",
        directory,
        config.hnsw,
        lambda done, total: context.report(done, total, {}),
    )
    return {"items": manifest.items, "store_version": manifest.store_version}
