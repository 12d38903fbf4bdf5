"""Giving every knowledge item the student's query vector, and laying the candidate of a release out."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from offline.store.lexical_fit import fit_lexical
from services.releases.manifest import (
    BUNDLE,
    KNOWLEDGE,
    LEXICAL,
    SOFT_LABELS,
    ReleaseManifest,
    write_release_manifest,
)
from services.store.backends.base import HnswParameters
from services.store.knowledge_file import (
    Knowledge,
    read_knowledge,
    version_manifest,
    write_knowledge,
)
from services.student.bundle import BundleManifest, load_bundle
from services.student.encoder import OnnxEncoder
from services.student.lexical import LexicalIndex

ROWS_AT_ONCE = 512

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def write_candidate(
    knowledge_file: Path,
    bundle_directory: Path,
    directory: Path,
    hnsw: HnswParameters,
    progress: Progress,
) -> ReleaseManifest:
    """Write into `directory` what a release is made of: bundle, knowledge with vectors, soft labels, lexical index.

    The vectors are made by the very ONNX file that will serve.

    Args:
        knowledge_file: items without vectors.
        bundle_directory: the trained student.
        directory: an existing, empty directory.
        hnsw: parameters of the store version's graph.
        progress: called after every few hundred items.

    Raises:
        CorruptArtifact: the knowledge file or the bundle is damaged.
    """
    bundle = load_bundle(bundle_directory)
    encoder = OnnxEncoder.of_bundle(bundle)
    knowledge = read_knowledge(knowledge_file)
    texts = knowledge.table["text"].to_pylist()
    pairs = knowledge.table["text_pair"].to_pylist() if knowledge.metadata.pair else None
    vectors = np.empty((len(texts), encoder.dimensions), dtype=np.float32)
    for start in range(0, len(texts), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        _, vectors[rows] = encoder.encode(texts[rows], pairs[rows] if pairs is not None else None)
        progress(min(rows.stop, len(texts)), len(texts))
    shutil.copytree(bundle_directory, directory / BUNDLE)
    with_vectors = knowledge.with_vectors(vectors, bundle.manifest.encoder_fingerprint, hnsw)
    write_knowledge(directory / KNOWLEDGE, with_vectors)
    np.save(directory / SOFT_LABELS, knowledge.soft_labels.astype(np.float16))
    write_lexical(directory, with_vectors, bundle.manifest)
    return write_release_manifest(
        directory,
        task=knowledge.metadata.task,
        labels=knowledge.metadata.labels,
        store_version=version_manifest(directory / KNOWLEDGE).version,
        encoder_fingerprint=bundle.manifest.encoder_fingerprint,
        items=len(texts),
        metrics={},
    )


def write_lexical(
    directory: Path, knowledge: Knowledge, bundle: BundleManifest
) -> LexicalIndex | None:
    """Write the lexical index of a release, where its student wants one.

    Args:
        directory: of the release.
        knowledge: its items.
        bundle: its student.
    """
    if not bundle.mixing.lexical_share:
        return None
    weights = fit_lexical(
        knowledge.table["text"].to_pylist(),
        knowledge.table["text_pair"].to_pylist() if knowledge.metadata.pair else None,
        knowledge.soft_labels,
        known=len(bundle.labels),
        most_words=bundle.max_tokens,
    )
    weights.save(directory / LEXICAL)
    return LexicalIndex(weights)
