"""A layout in the words of a Qdrant server: how a collection is made, and what a search of it is told.

The older words for disk and memory (`on_disk`, `always_ram`) are used, which every server since 1.16 knows.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from qdrant_client import models

from services.store.backends.base import VersionManifest
from services.store.backends.layout import Layout, Quantisation

LAYOUT_KEY = "retrikt_layout"
"""In a collection's metadata, beside the manifest."""


def collection_arguments(manifest: VersionManifest, layout: Layout) -> dict[str, Any]:
    """What `create_collection` takes beside the name; the graph is put off until every point is there."""
    return {
        "vectors_config": models.VectorParams(
            size=manifest.dimensions,
            distance=models.Distance.COSINE,
            on_disk=layout.vectors_on_disk or None,
        ),
        "hnsw_config": models.HnswConfigDiff(
            m=manifest.hnsw.m,
            ef_construct=manifest.hnsw.ef_construct,
            full_scan_threshold=manifest.hnsw.full_scan_threshold_kb,
            on_disk=layout.graph_on_disk or None,
        ),
        "optimizers_config": models.OptimizersConfigDiff(indexing_threshold=0),
        "quantization_config": _compressed(layout.quantisation),
        "shard_number": layout.shards,
        "replication_factor": layout.replicas,
        "write_consistency_factor": layout.write_consistency,
    }


def search_parameters(
    manifest: VersionManifest, quantisation: Quantisation | None, k: int, *, exact: bool
) -> models.SearchParams:
    """What each query of a search for k neighbours is told."""
    if exact:
        whole = models.QuantizationSearchParams(ignore=True) if quantisation else None
        return models.SearchParams(exact=True, quantization=whole)
    told = None
    if quantisation is not None:
        told = models.QuantizationSearchParams(
            rescore=quantisation.rescore, oversampling=quantisation.oversampling
        )
    return models.SearchParams(hnsw_ef=max(manifest.hnsw.ef_search, k), quantization=told)


def quantisation_of(config: models.CollectionConfig) -> Quantisation | None:
    """How a collection is compressed: by its layout, or, restored without one, by what it is made of."""
    metadata: Mapping[str, Any] = config.metadata or {}
    try:
        if LAYOUT_KEY in metadata:
            return Layout.model_validate(metadata[LAYOUT_KEY]).quantisation
    except ValidationError:
        pass  # Of another version of this program: what the collection is made of says enough.
    match config.quantization_config:
        case models.ScalarQuantization():
            return Quantisation(kind="scalar")
        case models.BinaryQuantization():
            return Quantisation(kind="binary")
        case _:
            return None


def _compressed(quantisation: Quantisation | None) -> models.QuantizationConfig | None:
    match quantisation:
        case None:
            return None
        case Quantisation(kind="scalar"):
            return models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
            )
        case _:
            return models.BinaryQuantization(
                binary=models.BinaryQuantizationConfig(always_ram=True)
            )
