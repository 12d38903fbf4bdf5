"""A search from its body's bytes to those of its answer, whichever way it came in."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
import orjson
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from services.platform.auth import Keys
from services.platform.deadline import Deadlines
from services.platform.errors import BatchTooLarge, InvalidRequest
from services.platform.http import invalid_request
from services.platform.spans import note, span
from services.store.knowledge_store import KnowledgeStore
from services.store.metrics import StoreMetrics
from services.store.schemas import SearchRequest, search_body
from services.store.settings import StoreSettings
from services.store.workers import Workers

M = TypeVar("M", bound=BaseModel)

_JSON = orjson.OPT_SERIALIZE_NUMPY

AT_ONCE = 16
"""Vectors of a search that may be done on the event loop; the engine does not let go of them singly either."""


class Searches:
    """Answers searches.

    The store is called from worker threads, with one exception: a small search that is alone, of a version that is open
    in this process, is done at once. The engine keeps the interpreter's lock meanwhile, so that nothing
    else would run anyhow, and to hand it to a thread and back costs half as much as the search.

    Args:
        store: is searched.
        workers: whose threads search, and what limits how much waits for them.
        settings: limits of a request.
        keys: who may search, and who may see texts.
        metrics: told what each search took.
    """

    def __init__(
        self,
        store: KnowledgeStore,
        workers: Workers,
        settings: StoreSettings,
        keys: Keys,
        metrics: StoreMetrics,
    ) -> None:
        self._store = store
        self._workers = workers
        self._settings = settings
        self._keys = keys
        self._metrics = metrics
        self._reading = Deadlines(settings.max_body_seconds)
        self._alone = True

    async def answer(
        self, version: str, authorization: str | None, read: Callable[[], Awaitable[bytes]]
    ) -> bytes:
        """A `SearchAnswer` as JSON.

        Args:
            version: its name, or `live`.
            authorization: the request's header; looked at before anything is read.
            read: the request's body.

        Raises:
            NotAuthenticated, PermissionDenied: see `Keys.check`.
            InvalidRequest, BatchTooLarge: the body is no search, or goes beyond a limit.
            TimedOut: the body, or the answer, did not come in time.
            Overloaded: too many searches wait.
            VersionNotFound, CorruptArtifact, StoreUnavailable: see `StoreBackend.search`.
        """
        granted = self._keys.check(authorization, "read")
        with self._reading.start():
            body = await read()
        query = parse(SearchRequest, body)
        if query.with_items and "text" not in granted:
            self._keys.check(authorization, "text")
        vectors = _matrix(query, self._settings)
        asked = time.perf_counter()
        if self._at_once(version, query):
            return self._search(version, query, vectors, asked)
        return await self._workers.run(lambda: self._search(version, query, vectors, asked))

    def _at_once(self, version: str, query: SearchRequest) -> bool:
        """Whether to search on the event loop; of requests that came together, the first one alone."""
        small = len(query.vectors) <= AT_ONCE and not (query.exact or query.with_items)
        if not (small and self._alone and not self._workers.waiting):
            return False
        if not self._store.at_hand(version):
            return False
        self._alone = False
        asyncio.get_running_loop().call_soon(self._once_more)
        return True

    def _once_more(self) -> None:
        self._alone = True

    def _search(
        self, version: str, query: SearchRequest, vectors: NDArray[np.float32], asked: float
    ) -> bytes:
        metrics, began = self._metrics, time.perf_counter()
        with span("search"):
            found = self._store.search(
                version, vectors, query.k, exact=query.exact, with_items=query.with_items
            )
            note(store_version=found.version, vectors=len(vectors), k=query.k)
        metrics.wait.observe(began - asked)
        metrics.search.observe(time.perf_counter() - began)
        metrics.vectors.observe(len(vectors))
        return orjson.dumps(search_body(found), option=_JSON)


def parse(model: type[M], body: bytes) -> M:
    """Straight from bytes: through the standard library's JSON a batch of vectors takes three times as long.

    Raises InvalidRequest.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > len(model.model_fields):
            # Each of its fields has one at the most: writing out millions would take gigabytes.
            raise InvalidRequest("The request's body: it has unknown fields.") from error
        told = RequestValidationError(error.errors(include_url=False))
        raise invalid_request(told) from error


def _matrix(query: SearchRequest, settings: StoreSettings) -> NDArray[np.float32]:
    if len(query.vectors) > settings.max_batch:
        raise BatchTooLarge(
            f"{len(query.vectors)} vectors in one request, at most {settings.max_batch} are taken.",
            hint="Split them over several requests.",
        )
    if query.k > settings.max_k:
        raise InvalidRequest(f"k is {query.k}, at most {settings.max_k} is taken.")
    if len({len(row) for row in query.vectors}) > 1:
        raise InvalidRequest("The vectors of one request differ in their number of dimensions.")
    return np.array(query.vectors, dtype=np.float32)
