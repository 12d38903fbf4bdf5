"""How a student reaches the store: in its own process or over HTTP, with the same calls."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray
from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from services.platform.errors import (
    BatchTooLarge,
    BodyTooLarge,
    CorruptArtifact,
    IncompatibleArtifacts,
    InvalidConfig,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    RetriktError,
    StorageFull,
    StoreUnavailable,
    VersionNotFound,
)
from services.platform.spans import span, traceparent
from services.store.backends.base import (
    Hits,
    StoreBackend,
    StoredItem,
    VersionManifest,
    valid_version,
)
from services.store.timely_http import TimelyHttp

__all__ = [
    "EmbeddedStoreClient",
    "Hits",
    "HttpStoreClient",
    "StoreClient",
    "StoredItem",
    "VersionManifest",
]


class StoreClient(Protocol):
    """The store as a student sees it; may be called from several threads.

    Whatever keeps the store from answering is a `StoreUnavailable`.
    """

    def search(
        self,
        version: str,
        vectors: NDArray[np.float32],
        k: int,
        *,
        timeout: float | None = None,
    ) -> Hits:
        """The k nearest items of each vector (float32 (b, d), unit length).

        Args:
            timeout: seconds that the answer may take; the client's own limit where none is given.

        Raises:
            StoreUnavailable, VersionNotFound.
        """

    def items(
        self, version: str, ids: Sequence[int], *, timeout: float | None = None
    ) -> list[StoredItem]:
        """Texts of the items with these ids, in their order.

        Args:
            timeout: see `search`.

        Raises:
            NotFound, StoreUnavailable.
        """

    def check(self, version: str, encoder_fingerprint: str) -> VersionManifest:
        """The version's manifest, once its vectors are known to be this encoder's.

        Raises:
            IncompatibleArtifacts: another encoder wrote the version.
            VersionNotFound, StoreUnavailable.
        """

    def close(self) -> None:
        """Let go of files and connections."""


class EmbeddedStoreClient:
    """A backend in the same process. `timeout` is not looked at: nothing there waits."""

    def __init__(self, backend: StoreBackend) -> None:
        self._backend = backend

    @classmethod
    def edge(
        cls, directory: Path, *, knowledge: Callable[[str], Path | None] | None = None
    ) -> "EmbeddedStoreClient":
        """A client with private copies of the sealed versions in `directory` (`runs/<task>/store`).

        Args:
            knowledge: gives a version's knowledge file; a version that is absent or damaged is
                loaded from it.
        """
        from services.store.backends.edge import EdgeBackend

        return cls(EdgeBackend(directory, knowledge=knowledge))

    def search(
        self,
        version: str,
        vectors: NDArray[np.float32],
        k: int,
        *,
        timeout: float | None = None,
    ) -> Hits:
        with _unavailable_when_broken():
            return self._backend.search(version, vectors, k)

    def items(
        self, version: str, ids: Sequence[int], *, timeout: float | None = None
    ) -> list[StoredItem]:
        with _unavailable_when_broken():
            return self._backend.items(version, ids)

    def check(self, version: str, encoder_fingerprint: str) -> VersionManifest:
        with _unavailable_when_broken():
            return check_fingerprint(self._backend.manifest(version), encoder_fingerprint)

    def close(self) -> None:
        self._backend.close()


@contextmanager
def _unavailable_when_broken() -> Iterator[None]:
    try:
        yield
    except (CorruptArtifact, StorageFull) as error:
        raise StoreUnavailable(f"The store cannot answer: {error}") from error


def check_fingerprint(manifest: VersionManifest, encoder_fingerprint: str) -> VersionManifest:
    """The manifest itself. Raises IncompatibleArtifacts where another encoder wrote the version."""
    if manifest.encoder_fingerprint != encoder_fingerprint:
        raise IncompatibleArtifacts(
            f"The store version {manifest.version} was written by the encoder "
            f"{manifest.encoder_fingerprint}, this student's encoder is {encoder_fingerprint}.",
            hint="A student only reads the version that its own encoder wrote: use the version "
            "named in the student's release, or rebuild the release.",
        )
    return manifest


class HttpStoreClient:
    """The store service over HTTP, through a pool of connections that stay open.

    Args:
        url: of the service, such as `http://store:8001`.
        timeout: seconds that a call may take where it does not say otherwise.
        connections: how many calls may be under way at a time.
        key: of the service, with the permission `read`, and `text` for `items`; None sends none.

    Raises:
        InvalidConfig: the URL is none, or the key is nothing that a header can hold.
    """

    def __init__(
        self, url: str, *, timeout: float = 1.0, connections: int = 32, key: str | None = None
    ) -> None:
        if key is not None and not re.fullmatch(r"[!-~]+", key):
            raise InvalidConfig(
                "The store's key has characters that no key has.",
                hint="Expected printable ASCII characters without spaces.",
            )
        if not re.match(r"https?://[^/]", url):
            raise InvalidConfig(
                f"The store's URL is {url!r}.", hint="Expected one such as http://127.0.0.1:8001."
            )
        self._url = url
        self._timeout = timeout
        self._http = TimelyHttp(url, connections=connections, key=key)

    def search(
        self,
        version: str,
        vectors: NDArray[np.float32],
        k: int,
        *,
        timeout: float | None = None,
    ) -> Hits:
        query = {"vectors": np.ascontiguousarray(vectors), "k": k}
        body = orjson.dumps(query, option=orjson.OPT_SERIALIZE_NUMPY)
        answer = self._call("POST", f"/v1/versions/{valid_version(version)}/search", body, timeout)
        try:
            shape = (len(vectors), k)
            # JSON has no infinity: the scores of the padding come as null, which becomes NaN here.
            scores = np.array(answer["scores"], dtype=np.float32).reshape(shape)
            ids = np.array(answer["ids"], dtype=np.int64).reshape(shape)
        except (KeyError, TypeError, ValueError) as error:
            raise self._strange("hits", error) from error
        return Hits(ids, np.where(np.isnan(scores), np.float32(-np.inf), scores))

    def items(
        self, version: str, ids: Sequence[int], *, timeout: float | None = None
    ) -> list[StoredItem]:
        body = orjson.dumps({"ids": [int(number) for number in ids]})
        answer = self._call("POST", f"/v1/versions/{valid_version(version)}/items", body, timeout)
        try:
            return [StoredItem(**item) for item in answer["items"]]
        except (KeyError, TypeError) as error:
            raise self._strange("items", error) from error

    def check(self, version: str, encoder_fingerprint: str) -> VersionManifest:
        answer = self._call("GET", f"/v1/versions/{valid_version(version)}", None, None)
        try:
            manifest = VersionManifest.model_validate_json(orjson.dumps(answer))
        except ValidationError as error:
            raise self._strange("a manifest", error) from error
        return check_fingerprint(manifest, encoder_fingerprint)

    def close(self) -> None:
        self._http.close()

    def _call(
        self, method: str, path: str, body: bytes | None, timeout: float | None
    ) -> dict[str, Any]:
        seconds = self._timeout if timeout is None else timeout
        about = {"http.request.method": method, "url.full": self._url + path}
        with span(f"{method} {path}", SpanKind.CLIENT, **about) as call:
            status, content = self._http.call(method, path, body, seconds, headers=traceparent())
            call.set_attribute("http.response.status_code", status)
        try:
            answer = orjson.loads(content)
            if not isinstance(answer, dict):
                raise TypeError(f"an object was expected, {type(answer).__name__} came")
        except (orjson.JSONDecodeError, TypeError) as error:
            raise self._strange(f"status {status}", error) from error
        if status != 200:
            raise self._error(status, answer)
        return answer

    def _error(self, status: int, answer: dict[str, Any]) -> RetriktError:
        said = str(answer.get("error", answer))[:500]
        match answer.get("code"):
            case VersionNotFound.code:
                return VersionNotFound(said)
            case NotFound.code:
                return NotFound(said)
            case InvalidRequest.code | BatchTooLarge.code | BodyTooLarge.code:
                return InvalidRequest(said)
            case NotAuthenticated.code | PermissionDenied.code:
                return StoreUnavailable(
                    f"The store at {self._url} refuses this client: {said}",
                    hint="Check the key that the client sends.",
                )
        return StoreUnavailable(f"The store at {self._url} answered {status}: {said}")

    def _strange(self, what: str, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(
            f"What answers at {self._url} ({what}) is not the store: {str(error)[:200]}.",
            hint="Check its URL.",
        )
