"""Routes of the store service that read: search a version, list versions, look items up, figures."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel

from services.platform.auth import Keys, requires
from services.platform.deadline import Deadlines
from services.platform.errors import BatchTooLarge
from services.platform.http import JsonResponse
from services.store.backends.base import VersionManifest
from services.store.fast_path import SEARCH_PATH
from services.store.knowledge_store import KnowledgeStore
from services.store.schemas import (
    ErrorAnswer,
    Item,
    ItemsAnswer,
    ItemsRequest,
    SearchAnswer,
    SearchRequest,
    StatisticsAnswer,
    VersionsAnswer,
    statistics_answer,
)
from services.store.searching import Searches, parse
from services.store.settings import StoreSettings
from services.store.workers import Workers

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in (
        (401, "No key, or an unknown one."),
        (403, "The key lacks the permission."),
        (404, "There is no such version or item."),
        (413, "The body or the batch is too large."),
        (422, "The request does not fit its schema or the version."),
        (429, "Too many requests wait; come back after Retry-After seconds."),
        (503, "The vector store does not answer, or not in time."),
    )
}

Version = Annotated[str, PathParameter(description="A version's name, or `live`.")]


def store_router(
    store: KnowledgeStore,
    searches: Searches,
    workers: Workers,
    settings: StoreSettings,
    keys: Keys,
) -> APIRouter:
    """The routes under `/v1/versions`; the store is called from worker threads.

    Searches are documented here; `services.store.fast_path` answers them in practice.
    """
    router = APIRouter(tags=["store"], responses=ERRORS)
    read = [Depends(requires(keys, "read"))]
    text = [Depends(requires(keys, "text"))]
    reading = Deadlines(settings.max_body_seconds)

    async def items_request(request: Request) -> ItemsRequest:
        with reading.start():
            body = await request.body()
        return parse(ItemsRequest, body)

    @router.post(
        SEARCH_PATH,
        summary="Nearest items of a batch of vectors",
        description="Takes the permission `read`, and `text` too for `with_items`.",
        response_model=SearchAnswer,
        openapi_extra=_body(SearchRequest, vectors=settings.max_batch, k=settings.max_k),
        dependencies=read,
    )
    async def search(version: Version, request: Request) -> Response:
        key = request.headers.get("authorization")
        body = await searches.answer(version, key, request.body)
        return Response(body, media_type="application/json")

    @router.get(
        "/v1/versions",
        summary="The sealed versions",
        response_model=VersionsAnswer,
        dependencies=read,
    )
    async def versions() -> Response:
        found = await workers.run(store.versions)
        return JsonResponse({"versions": [manifest.model_dump(mode="json") for manifest in found]})

    @router.get(
        "/v1/versions/{version}",
        summary="The manifest of a version",
        response_model=VersionManifest,
        dependencies=read,
    )
    async def manifest(version: Version) -> Response:
        found = await workers.run(lambda: store.manifest(version))
        return JsonResponse(found.model_dump(mode="json"))

    @router.get(
        "/v1/versions/{version}/statistics",
        summary="Items by label and origin, and the age of a version",
        response_model=StatisticsAnswer,
        dependencies=read,
    )
    async def statistics(version: Version) -> Response:
        found = await workers.run(lambda: store.statistics(version))
        return JsonResponse(statistics_answer(found).model_dump(mode="json"))

    @router.get(
        "/v1/versions/{version}/items/{identifier}",
        summary="Text, label and origin of an item",
        response_model=Item,
        dependencies=text,
    )
    async def item(version: Version, identifier: Annotated[int, PathParameter(ge=0)]) -> Response:
        _, found = await workers.run(lambda: store.items(version, [identifier]))
        return JsonResponse(found[0])

    @router.post(
        "/v1/versions/{version}/items",
        summary="Texts, labels and origins of items",
        response_model=ItemsAnswer,
        openapi_extra=_body(ItemsRequest, ids=settings.max_ids),
        dependencies=text,
    )
    async def items(
        version: Version, query: Annotated[ItemsRequest, Depends(items_request)]
    ) -> Response:
        if len(query.ids) > settings.max_ids:
            raise BatchTooLarge(
                f"{len(query.ids)} ids in one request, at most {settings.max_ids} are taken.",
                hint="Split them over several requests.",
            )
        name, found = await workers.run(lambda: store.items(version, query.ids))
        return JsonResponse({"version": name, "items": found})

    return router


def _body(model: type[BaseModel], **limits: int) -> dict[str, Any]:
    """The body in the OpenAPI document, with this service's limits of its lists and numbers."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, limit in limits.items():
        field = schema["properties"][name]
        field["maxItems" if field["type"] == "array" else "maximum"] = limit
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
