"""Routes of the store service: search a version, list versions, look items up."""

from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from services.platform.errors import BatchTooLarge, InvalidRequest
from services.platform.http import JsonResponse
from services.store.backends.base import StoreBackend
from services.store.schemas import (
    ErrorAnswer,
    ItemsAnswer,
    ItemsRequest,
    SearchAnswer,
    SearchRequest,
    VersionsAnswer,
    search_body,
)
from services.store.settings import StoreSettings
from services.store.workers import Workers

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in (
        (404, "There is no such version or item."),
        (413, "The body or the batch is too large."),
        (422, "The request does not fit its schema or the version."),
        (429, "Too many searches wait; come back after Retry-After seconds."),
        (503, "The vector store does not answer."),
    )
}

M = TypeVar("M", bound=BaseModel)


def store_router(backend: StoreBackend, workers: Workers, settings: StoreSettings) -> APIRouter:
    """The routes under `/v1`, on a backend that is called from worker threads."""
    router = APIRouter(tags=["store"], responses=ERRORS)

    @router.post(
        "/v1/versions/{version}/search",
        summary="Nearest items of a batch of vectors",
        response_model=SearchAnswer,
        openapi_extra=_body(SearchRequest),
    )
    async def search(
        version: str, query: Annotated[SearchRequest, Depends(_search_request)]
    ) -> Response:
        vectors = _matrix(query, settings)

        def work() -> dict[str, Any]:
            hits = backend.search(version, vectors, query.k, exact=query.exact)
            items = None
            if query.with_items:
                found = np.unique(hits.ids[hits.ids >= 0]).tolist()
                items = {item.id: item for item in backend.items(version, found)}
            return search_body(version, hits, items)

        return JsonResponse(await workers.run(work))

    @router.get("/v1/versions", summary="The sealed versions", response_model=VersionsAnswer)
    async def versions() -> Response:
        found = await workers.run(backend.versions)
        return JsonResponse({"versions": [manifest.model_dump(mode="json") for manifest in found]})

    @router.get("/v1/versions/{version}", summary="The manifest of a version")
    async def version(version: str) -> Response:
        manifest = await workers.run(lambda: backend.manifest(version))
        return JsonResponse(manifest.model_dump(mode="json"))

    @router.post(
        "/v1/versions/{version}/items",
        summary="Texts, labels and origins of items",
        response_model=ItemsAnswer,
        openapi_extra=_body(ItemsRequest),
    )
    async def items(
        version: str, query: Annotated[ItemsRequest, Depends(_items_request)]
    ) -> Response:
        if len(query.ids) > settings.max_ids:
            raise BatchTooLarge(
                f"{len(query.ids)} ids in one request, at most {settings.max_ids} are taken.",
                hint="Split them over several requests.",
            )
        found = await workers.run(lambda: backend.items(version, query.ids))
        return JsonResponse({"version": version, "items": found})

    return router


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


async def _search_request(request: Request) -> SearchRequest:
    return _parse(SearchRequest, await request.body())


async def _items_request(request: Request) -> ItemsRequest:
    return _parse(ItemsRequest, await request.body())


def _parse(model: type[M], body: bytes) -> M:
    """Straight from bytes: through the standard library's JSON a batch of vectors takes three times as long."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from error


def _body(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
