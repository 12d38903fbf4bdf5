"""Store versions as collections of a Qdrant server or cluster, through `qdrant-client`.

A version is the collection `retrikt-<task>-<version>`. Its manifest lies in the collection's
metadata and is written last: a collection without one is half built, and nobody sees it. (Collection
metadata came with Qdrant 1.16.)
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import ValidationError
from qdrant_client import QdrantClient, models

from services.platform.errors import (
    CorruptArtifact,
    RetriktError,
    StoreUnavailable,
    VersionNotFound,
)
from services.store.backends.base import (
    PADDING_ID,
    Engine,
    Hits,
    PointBatch,
    StoredItem,
    VersionManifest,
    check_query,
    same_version,
    stored_item,
    valid_version,
    version_not_found,
)
from services.store.backends.layout import Layout, Quantisation
from services.store.backends.points import checked
from services.store.backends.server_call import call
from services.store.backends.server_layout import (
    LAYOUT_KEY,
    collection_arguments,
    quantisation_of,
    search_parameters,
)
from services.store.backends.server_snapshot import QdrantSnapshots

log = structlog.get_logger(__name__)

METADATA_KEY = "retrikt"
_POLL_SECONDS = 0.2
_GREEN_IN_A_ROW = 3

T = TypeVar("T")


class ServerBackend:
    """A `StoreBackend` on a Qdrant server.

    Args:
        client: connected to the server; in-memory clients serve tests.
        task: versions of this task alone are seen.
        index_seconds: how long a graph may take to build.
        snapshots: of the same server; None where there is none behind.
        layout: of the versions that are built here.
    """

    engine: Engine = "server"

    def __init__(
        self,
        client: QdrantClient,
        task: str,
        *,
        index_seconds: float = 3600.0,
        snapshots: QdrantSnapshots | None = None,
        layout: Layout | None = None,
    ) -> None:
        self._client = client
        self._layout = layout or Layout()
        self._snapshots = snapshots
        self._task = task
        self._index_seconds = index_seconds
        self._sealed: dict[str, tuple[VersionManifest, Quantisation | None]] = {}

    @classmethod
    def connect(
        cls,
        url: str,
        task: str,
        *,
        api_key: str | None = None,
        prefer_grpc: bool = False,
        grpc_port: int = 6334,
        timeout: float = 10.0,
        layout: Layout | None = None,
    ) -> "ServerBackend":
        """A backend on the server at `url`; the first call is what needs it to be there.

        Args:
            timeout: seconds a call may take, in whole seconds.
            layout: see the class.
        """
        client = QdrantClient(
            url=url,
            api_key=api_key,
            prefer_grpc=prefer_grpc,
            grpc_port=grpc_port,
            timeout=max(1, round(timeout)),
            check_compatibility=False,
        )
        return cls(client, task, snapshots=QdrantSnapshots.connect(url, api_key), layout=layout)

    def build(self, manifest: VersionManifest, batches: Iterable[PointBatch]) -> VersionManifest:
        name = self._collection(manifest.version)
        with suppress(VersionNotFound, CorruptArtifact):
            return same_version(self._fetch(manifest.version), manifest)
        call(self._client.delete_collection, name)
        arguments = collection_arguments(manifest, self._layout)
        call(self._client.create_collection, name, **arguments)
        try:
            return self._fill(name, manifest, batches)
        except VersionNotFound as error:
            raise StoreUnavailable(
                f"The collection {name} was deleted while it was built, or its metadata was not kept.",
                hint="Build it again. Qdrant must be 1.16 or newer: older ones keep no metadata.",
            ) from error
        except BaseException:
            with suppress(RetriktError):
                call(self._client.delete_collection, name)
            raise

    def versions(self) -> list[VersionManifest]:
        found = []
        prefix = self._collection("")
        for collection in call(self._client.get_collections).collections:
            if not collection.name.startswith(prefix):
                continue
            try:
                manifest = self._fetch(collection.name.removeprefix(prefix))
            except VersionNotFound:
                continue  # Half built, or gone meanwhile, or another task's.
            except CorruptArtifact as error:
                log.warning("version_unreadable", collection=collection.name, reason=str(error))
                continue
            found.append(manifest)
        return sorted(found, key=lambda manifest: (str(manifest.created_at), manifest.version))

    def manifest(self, version: str) -> VersionManifest:
        return self._fetch(version)

    def search(
        self, version: str, vectors: NDArray[np.float32], k: int, *, exact: bool = False
    ) -> Hits:
        manifest, quantisation = self._sealed.get(version) or self._look_up(version)
        check_query(manifest, vectors, k)
        found = min(k, manifest.count)
        params = search_parameters(manifest, quantisation, found, exact=exact)
        requests = [
            models.QueryRequest(query=row, limit=found, params=params) for row in vectors.tolist()
        ]
        ids = np.full((len(requests), k), PADDING_ID, dtype=np.int64)
        scores = np.full((len(requests), k), -np.inf, dtype=np.float32)
        if requests:
            answers = self._of(version, self._client.query_batch_points, requests=requests)
            for row, answer in enumerate(answers):
                ids[row, : len(answer.points)] = [point.id for point in answer.points]
                scores[row, : len(answer.points)] = [point.score for point in answer.points]
        return Hits(ids, scores)

    def items(self, version: str, ids: Sequence[int]) -> list[StoredItem]:
        manifest, _ = self._sealed.get(version) or self._look_up(version)
        wanted = [int(identifier) for identifier in ids]
        known = [identifier for identifier in wanted if 0 <= identifier < manifest.count]
        records = self._of(version, self._client.retrieve, ids=known, with_payload=True)
        payloads = {record.id: record.payload or {} for record in records}
        return [stored_item(identifier, payloads, version) for identifier in wanted]

    def delete(self, version: str) -> None:
        self._fetch(version)
        self._sealed.pop(version, None)
        call(self._client.delete_collection, self._collection(version))

    def save(self, version: str, directory: Path) -> None:
        self._fetch(version)
        self._snapshots_of_server().download(self._collection(version), directory)

    def restore(self, manifest: VersionManifest, directory: Path) -> VersionManifest:
        name = self._collection(manifest.version)
        with suppress(VersionNotFound, CorruptArtifact):
            return same_version(self._fetch(manifest.version), manifest)
        snapshots = self._snapshots_of_server()
        try:
            snapshots.upload(name, directory)
            return self._seal(name, manifest)
        except BaseException:
            with suppress(RetriktError):
                call(self._client.delete_collection, name)
            raise

    def close(self) -> None:
        self._client.close()
        if self._snapshots is not None:
            self._snapshots.close()

    def _snapshots_of_server(self) -> QdrantSnapshots:
        if self._snapshots is None:
            raise StoreUnavailable("The in-memory mode of qdrant-client has no snapshots.")
        return self._snapshots

    def _collection(self, version: str) -> str:
        return f"retrikt-{self._task}-{version}"

    def _fetch(self, version: str) -> VersionManifest:
        """The manifest from the server; a version deleted elsewhere is not found, cached or not."""
        return self._look_up(version)[0]

    def _look_up(self, version: str) -> tuple[VersionManifest, Quantisation | None]:
        self._sealed.pop(version, None)
        info = self._of(valid_version(version), self._client.get_collection)
        raw = (info.config.metadata or {}).get(METADATA_KEY)
        if raw is None:
            raise version_not_found(version)
        try:
            manifest = VersionManifest.model_validate(raw)
        except ValidationError as error:
            raise CorruptArtifact(
                f"The manifest of the collection {self._collection(version)} cannot be read: "
                f"{error.errors()[0]['msg']}."
            ) from error
        if (manifest.task, manifest.version) != (self._task, version):
            raise version_not_found(version)
        known = self._sealed[version] = (manifest, quantisation_of(info.config))
        return known

    def _fill(
        self, name: str, manifest: VersionManifest, batches: Iterable[PointBatch]
    ) -> VersionManifest:
        for batch in checked(manifest, batches):
            points = models.Batch(
                ids=batch.ids.tolist(), vectors=batch.vectors.tolist(), payloads=batch.payloads
            )
            call(self._client.upsert, name, points, wait=True)
        self._check_count(name, manifest)
        threshold = manifest.hnsw.full_scan_threshold_kb
        call(
            self._client.update_collection,
            name,
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=threshold),
        )
        self._wait_for_graph(name)
        laid_out = {LAYOUT_KEY: self._layout.model_dump(mode="json")}
        sealed = manifest.model_copy(update={"created_at": datetime.now(UTC)})
        return self._seal(name, sealed, laid_out)

    def _seal(
        self, name: str, manifest: VersionManifest, beside: Mapping[str, object] | None = None
    ) -> VersionManifest:
        """Write the manifest of a collection that holds what it says."""
        self._check_count(name, manifest)
        metadata = {METADATA_KEY: manifest.model_dump(mode="json"), **(beside or {})}
        call(self._client.update_collection, name, metadata=metadata)
        return self._fetch(manifest.version)

    def _check_count(self, name: str, manifest: VersionManifest) -> None:
        count = call(self._client.count, name, exact=True).count
        if count != manifest.count:
            raise StoreUnavailable(
                f"The collection {name} holds {count} points after {manifest.count} were written.",
                hint="Another process may be building the same version; build it again.",
            )

    def _wait_for_graph(self, name: str) -> None:
        """Wait until the optimizer has been idle for a few looks in a row: it starts a moment late."""
        deadline = time.monotonic() + self._index_seconds
        green = 0
        while green < _GREEN_IN_A_ROW:
            status = call(self._client.get_collection, name).status
            if status == models.CollectionStatus.RED:
                raise StoreUnavailable(f"Qdrant could not index the collection {name}.")
            green = green + 1 if status == models.CollectionStatus.GREEN else 0
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"Qdrant has not indexed the collection {name} in {self._index_seconds:.0f} s."
                )
            time.sleep(_POLL_SECONDS)

    def _of(self, version: str, function: Callable[..., T], **arguments: object) -> T:
        """A call about one version's collection. Raises VersionNotFound where it is not there."""
        try:
            return call(function, self._collection(version), **arguments)
        except VersionNotFound as error:
            self._sealed.pop(version, None)
            raise version_not_found(version) from error
