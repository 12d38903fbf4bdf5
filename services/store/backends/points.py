"""Points on their way into a version: checked against its manifest, and as a stream between processes."""

from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa

from services.platform.errors import CorruptArtifact
from services.store.backends.base import PointBatch, VersionManifest


def checked(manifest: VersionManifest, batches: Iterable[PointBatch]) -> Iterator[PointBatch]:
    """The same batches; ids must be 0, 1, 2, … up to the manifest's count, vectors finite and of its length.

    Raises:
        CorruptArtifact: where they are not; nothing may be sealed then.
    """
    start = 0
    for batch in batches:
        count = len(batch.ids)
        if not np.array_equal(batch.ids, np.arange(start, start + count)):
            raise CorruptArtifact(
                f"The points of version {manifest.version} are not numbered 0, 1, 2, …: expected "
                f"{start} to {start + count - 1}."
            )
        if batch.vectors.shape != (count, manifest.dimensions) or len(batch.payloads) != count:
            raise CorruptArtifact(
                f"The vectors of version {manifest.version} have the shape {batch.vectors.shape}, "
                f"expected {(count, manifest.dimensions)}, and there are {len(batch.payloads)} payloads."
            )
        if not np.isfinite(batch.vectors).all():
            raise CorruptArtifact(f"A vector of version {manifest.version} is not finite.")
        start += count
        yield batch
    if start != manifest.count:
        raise CorruptArtifact(
            f"Version {manifest.version} should hold {manifest.count} points, {start} came.",
            hint="Build it again from its knowledge file.",
        )


def write_stream(sink: IO[bytes], batches: Iterable[PointBatch], dimensions: int) -> None:
    """Write batches as an Arrow stream, payloads as JSON."""
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("vector", pa.list_(pa.float32(), dimensions)),
            ("payload", pa.binary()),
        ]
    )
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            vectors = np.ascontiguousarray(batch.vectors, dtype=np.float32).reshape(-1)
            columns = [
                pa.array(batch.ids, pa.int64()),
                pa.FixedSizeListArray.from_arrays(pa.array(vectors), dimensions),
                pa.array([orjson.dumps(payload) for payload in batch.payloads], pa.binary()),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def read_stream(source: IO[bytes]) -> Iterator[PointBatch]:
    """The batches that `write_stream` wrote. A stream that breaks off just ends: check the count."""
    for batch in pa.ipc.open_stream(source):
        ids, vectors, payloads = (batch.column(name) for name in ("id", "vector", "payload"))
        matrix: Any = vectors.flatten().to_numpy(zero_copy_only=False)
        yield PointBatch(
            ids=ids.to_numpy(),
            vectors=matrix.reshape(batch.num_rows, -1),
            payloads=[orjson.loads(payload) for payload in payloads.to_pylist()],
        )
