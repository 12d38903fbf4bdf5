"""A copy of a task's live release with a store of another size, or a student that reads longer texts.

Items beyond the release's own are made up as `clusters.around` tells: each lies around one of the release's own,
at a similarity of about `SIMILARITY`, and has that item's soft label. So a student's query vectors find in them what
they find in real items: some that are near, many that are less so. For speed alone: their texts are numbers.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
from numpy.typing import NDArray
from onnx import numpy_helper

from servers.clusters import around
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import (
    BUNDLE,
    EDITED,
    KNOWLEDGE,
    LEXICAL,
    SOFT_LABELS,
    write_release_manifest,
)
from services.store.backends.edge import EdgeBackend
from services.store.knowledge_file import (
    Knowledge,
    fixed_lists,
    iterate_points,
    read_knowledge,
    version_manifest,
    write_knowledge,
)
from services.student.bundle import MODEL, load_bundle, write_bundle_manifest
from services.student.lexical import LexicalWeights

SIMILARITY = 0.85
POSITIONS = "positions.weight"
"""The student's table of positions among the model's weights."""


def live_release(task_dir: Path) -> Path:
    """The directory of the release that serves."""
    releases = ReleaseDirectory(task_dir / "releases")
    live = releases.live()
    if live is None:
        raise SystemExit(f"{task_dir} has no live release: run the pipeline first.")
    return releases.path(live.release)


def sized_task(task_dir: Path, folder: Path, items: int, max_tokens: int | None = None) -> Path:
    """A task directory below `folder` whose live release has that many items; see `add_sized`.

    One that is there is taken as it is.
    """
    made = folder / f"{items}-items"
    if ReleaseDirectory(made / "releases").live() is None:
        add_sized(live_release(task_dir), made, items, max_tokens)
    return made


def add_sized(release: Path, task_dir: Path, items: int, max_tokens: int | None = None) -> str:
    """Add such a release to a task directory, activate it, and tell its name.

    Args:
        release: the directory of the release that it is made of.
        task_dir: that it goes to; made where there is none.
        items: of its store: the first ones where the release has more, made-up ones beside them where it has fewer.
        max_tokens: longest text of its student; its table of positions is repeated for it.
    """
    if (release / EDITED).exists():
        raise SystemExit(f"{release} was edited; name a release that is as its run made it.")
    staged = task_dir / "staged"
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(release / BUNDLE, staged / BUNDLE)
    if max_tokens is not None:
        _read_longer(staged / BUNDLE, max_tokens)
    bundle = load_bundle(staged / BUNDLE).manifest
    knowledge = _sized(read_knowledge(release / KNOWLEDGE), items, bundle.encoder_fingerprint)
    write_knowledge(staged / KNOWLEDGE, knowledge)
    np.save(staged / SOFT_LABELS, knowledge.soft_labels.astype(np.float16))
    if (release / LEXICAL).exists():
        # It reads as much of a text as the student does.
        weights = LexicalWeights.load(release / LEXICAL, len(bundle.labels))
        replace(weights, most_words=bundle.max_tokens).save(staged / LEXICAL)
    version = version_manifest(staged / KNOWLEDGE)
    backend = EdgeBackend(task_dir / "store")
    backend.build(version, iterate_points(staged / KNOWLEDGE))
    backend.close()
    write_release_manifest(
        staged,
        task=bundle.task,
        labels=knowledge.metadata.labels,
        store_version=version.version,
        encoder_fingerprint=bundle.encoder_fingerprint,
        items=items,
        metrics={},
    )
    releases = ReleaseDirectory(task_dir / "releases")
    added = releases.add(staged).release
    releases.activate(added)
    shutil.rmtree(staged)
    return added


def _sized(knowledge: Knowledge, items: int, fingerprint: str) -> Knowledge:
    table, vectors, soft = knowledge.table, knowledge.vectors, knowledge.soft_labels
    rng = np.random.default_rng(0)
    rows = np.arange(min(items, len(table)))
    copied = rng.integers(len(table), size=items - len(rows))
    made_up = around(vectors[copied], SIMILARITY, rng)
    more = pa.table(
        {
            "text": [f"made up {number}" for number in range(len(copied))],
            "text_pair": table["text_pair"].take(copied),
            "label": table["label"].take(copied),
            "soft_label": fixed_lists(soft[copied]),
            "origin": pa.array(["generated"] * len(copied), pa.string()),
        }
    )
    own = table.select(more.column_names).take(rows)
    whole = pa.concat_tables([own, more.cast(own.schema)]).combine_chunks()
    whole = whole.add_column(0, "id", pa.array(np.arange(items)))
    return Knowledge(knowledge.metadata, whole).with_vectors(
        np.concatenate([vectors[rows], made_up]), fingerprint, knowledge.metadata.hnsw
    )


def _read_longer(bundle: Path, max_tokens: int) -> None:
    """Let a student read longer texts. What it answers to them means nothing; what it computes is as much."""
    manifest = load_bundle(bundle).manifest
    model = onnx.load(bundle / MODEL)
    (table,) = (weight for weight in model.graph.initializer if weight.name == POSITIONS)
    table.CopyFrom(numpy_helper.from_array(_repeated(table, max_tokens), POSITIONS))
    onnx.save(model, bundle / MODEL)
    told = dict(manifest.model_copy(update={"max_tokens": max_tokens}))
    del told["format"], told["encoder_fingerprint"]
    write_bundle_manifest(bundle, **told)


def _repeated(table: onnx.TensorProto, rows: int) -> NDArray[np.float32]:
    values = numpy_helper.to_array(table)
    return np.tile(values, (-(-rows // len(values)), 1))[:rows]
