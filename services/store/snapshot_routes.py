"""Routes of the store service for snapshots: make, list, restore, remove."""

from fastapi import APIRouter, Depends, Response

from services.platform.auth import Keys, requires
from services.platform.http import JsonResponse
from services.store.knowledge_store import KnowledgeStore
from services.store.routes import ERRORS, Version
from services.store.schemas import (
    ErrorAnswer,
    RestoredAnswer,
    SnapshotAnswer,
    SnapshotsAnswer,
    snapshot_answer,
)
from services.store.settings import StoreSettings
from services.store.workers import Workers
from services.store.writing import writes

SNAPSHOT_ERRORS = {
    **ERRORS,
    404: {"model": ErrorAnswer, "description": "No such snapshot or version; or none are kept."},
    507: {"model": ErrorAnswer, "description": "The disk is full."},
}


def snapshot_router(
    store: KnowledgeStore, workers: Workers, slow: Workers, settings: StoreSettings, keys: Keys
) -> APIRouter:
    """The routes for snapshots.

    Args:
        store: whose versions they are.
        workers: for what takes no time.
        slow: for making and restoring.
        settings, keys: who may do so.
    """
    router = APIRouter(tags=["snapshots"], responses=SNAPSHOT_ERRORS)
    read, write = [Depends(requires(keys, "read"))], [Depends(writes(keys, settings))]

    @router.get(
        "/v1/snapshots",
        summary="The snapshots",
        response_model=SnapshotsAnswer,
        dependencies=read,
    )
    async def snapshots() -> Response:
        found = await workers.run(store.snapshots)
        answer = SnapshotsAnswer(snapshots=[snapshot_answer(snapshot) for snapshot in found])
        return JsonResponse(answer.model_dump(mode="json"))

    @router.post(
        "/v1/versions/{version}/snapshots",
        summary="Make a snapshot of a version and its release",
        status_code=201,
        response_model=SnapshotAnswer,
        dependencies=write,
    )
    async def create(version: Version) -> Response:
        made = await slow.run(lambda: store.snapshot(version))
        return JsonResponse(snapshot_answer(made).model_dump(mode="json"), status_code=201)

    @router.post(
        "/v1/snapshots/{snapshot}/restore",
        summary="Make a snapshot's version a served one again",
        response_model=RestoredAnswer,
        responses={
            409: {
                "model": ErrorAnswer,
                "description": "Another task's, or another version is there.",
            },
            410: {"model": ErrorAnswer, "description": "Its release was purged here on request."},
        },
        dependencies=write,
    )
    async def restore(snapshot: str) -> Response:
        restored = await slow.run(lambda: store.restore(snapshot))
        answer = RestoredAnswer(version=restored.manifest, release=restored.release)
        return JsonResponse(answer.model_dump(mode="json"))

    @router.delete(
        "/v1/snapshots/{snapshot}",
        summary="Remove a snapshot",
        status_code=204,
        dependencies=write,
    )
    async def delete(snapshot: str) -> Response:
        await workers.run(lambda: store.delete_snapshot(snapshot))
        return Response(status_code=204)

    return router
