"""Snapshots of a Qdrant server's collections, brought here as files and taken back.

`qdrant-client` makes and removes them; their bytes pass over REST in pieces, which it cannot do. A
snapshot holds the shards of the node that is asked: in a cluster of several nodes a version is
restored from its knowledge file instead.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import structlog
from qdrant_client import QdrantClient

from services.platform.errors import CorruptArtifact, RetriktError, StoreUnavailable
from services.store.backends.sealed import disk_errors
from services.store.backends.server_call import call, reason

log = structlog.get_logger(__name__)

FILE = "collection.snapshot"
_SECONDS = 3600.0
_PIECE = 1 << 20


class QdrantSnapshots:
    """Makes, brings and takes back the snapshots of one server.

    Args:
        client: over REST, with time enough for a snapshot.
        http: the same server, for the bytes.
    """

    def __init__(self, client: QdrantClient, http: httpx.Client) -> None:
        self._client = client
        self._http = http

    @classmethod
    def connect(cls, url: str, api_key: str | None) -> "QdrantSnapshots":
        """Snapshots of the server at `url`; nothing is connected before the first call."""
        client = QdrantClient(
            url=url, api_key=api_key, timeout=round(_SECONDS), check_compatibility=False
        )
        headers = {"api-key": api_key} if api_key else {}
        timeout = httpx.Timeout(_SECONDS, connect=10.0)
        return cls(client, httpx.Client(base_url=url, headers=headers, timeout=timeout))

    def download(self, collection: str, directory: Path) -> None:
        """Make a snapshot of a collection, bring it to `directory`, and remove it from the server.

        Raises:
            CorruptArtifact: what came is not what the server made.
            VersionNotFound, StorageFull, StoreUnavailable.
        """
        made = call(self._client.create_snapshot, collection, wait=True)
        if made is None:
            raise StoreUnavailable(f"Qdrant made no snapshot of the collection {collection}.")
        try:
            digest = hashlib.sha256()
            path = f"/collections/{collection}/snapshots/{made.name}"
            with disk_errors(directory, "the snapshot was not brought here"):
                directory.mkdir(parents=True, exist_ok=True)
                with (directory / FILE).open("wb") as file, self._answer("GET", path) as answer:
                    for piece in answer.iter_bytes(_PIECE):
                        digest.update(piece)
                        file.write(piece)
            if made.checksum and digest.hexdigest() != made.checksum:
                raise CorruptArtifact(
                    f"The snapshot {made.name} has another checksum than Qdrant says.",
                    hint="Make it again.",
                )
        finally:
            with suppress(RetriktError):
                call(self._client.delete_snapshot, collection, made.name)

    def upload(self, collection: str, directory: Path) -> None:
        """Make a collection of what `download` brought, in place of what may be there.

        Raises:
            CorruptArtifact: there is no such file.
            StorageFull, StoreUnavailable.
        """
        try:
            file = (directory / FILE).open("rb")
        except FileNotFoundError as error:
            raise CorruptArtifact(f"{directory} holds no snapshot of a collection.") from error
        with file:
            query = {"wait": "true", "priority": "snapshot"}
            path = f"/collections/{collection}/snapshots/upload"
            with self._answer("POST", path, params=query, files={"snapshot": (FILE, file)}):
                log.info("collection_recovered", collection=collection)

    def close(self) -> None:
        self._client.close()
        self._http.close()

    @contextmanager
    def _answer(self, method: str, path: str, **more: object) -> Iterator[httpx.Response]:
        try:
            with self._http.stream(method, path, **more) as answer:  # type: ignore[arg-type]
                if answer.status_code != httpx.codes.OK:
                    raise reason(answer.status_code, answer.read().decode(errors="replace"))
                yield answer
        except httpx.HTTPError as error:
            raise StoreUnavailable(
                f"Qdrant does not answer: {error or type(error).__name__}.",
                hint="Check that it runs and that its URL is right.",
            ) from error
