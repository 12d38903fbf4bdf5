"""Routes of the store service for releases: list them, make one live, go back."""

from fastapi import APIRouter, Depends, Response

from services.platform.auth import Keys, requires
from services.platform.http import JsonResponse
from services.releases.directory import LivePointer
from services.store.knowledge_store import KnowledgeStore
from services.store.routes import ERRORS
from services.store.schemas import ErrorAnswer, ReleasesAnswer, releases_answer
from services.store.settings import StoreSettings
from services.store.workers import Workers
from services.store.writing import writes

SWITCH_ERRORS = {
    **ERRORS,
    404: {"model": ErrorAnswer, "description": "There is no such release, or not its version."},
    409: {"model": ErrorAnswer, "description": "The store version is not the release's own."},
    410: {"model": ErrorAnswer, "description": "Its files were given up: it was purged or pruned."},
    507: {"model": ErrorAnswer, "description": "The disk is full."},
}


def release_router(
    store: KnowledgeStore,
    workers: Workers,
    switches: Workers,
    settings: StoreSettings,
    keys: Keys,
) -> APIRouter:
    """The routes under `/v1/releases`; they write the live pointer that `retrikt release` writes.

    Args:
        store: whose releases they are.
        workers: for listing.
        switches: for activation and rollback.
        settings, keys: who may do so.
    """
    router = APIRouter(tags=["releases"], responses=ERRORS)
    write = [Depends(writes(keys, settings))]

    @router.get(
        "/v1/releases",
        summary="The releases, and which one is live",
        response_model=ReleasesAnswer,
        dependencies=[Depends(requires(keys, "read"))],
    )
    async def releases() -> Response:
        found, live = await workers.run(store.releases)
        return JsonResponse(releases_answer(found, live).model_dump(mode="json"))

    @router.post(
        "/v1/releases/{release}/activate",
        summary="Make a release live",
        response_model=LivePointer,
        responses=SWITCH_ERRORS,
        dependencies=write,
    )
    async def activate(release: str) -> Response:
        pointer = await switches.run(lambda: store.activate(release))
        return JsonResponse(pointer.model_dump())

    @router.post(
        "/v1/releases/rollback",
        summary="Make the release before the live one live again",
        response_model=LivePointer,
        responses=SWITCH_ERRORS,
        dependencies=write,
    )
    async def rollback() -> Response:
        pointer = await switches.run(store.rollback)
        return JsonResponse(pointer.model_dump())

    return router
