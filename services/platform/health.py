"""`/livez`, `/readyz` and `/info`: what orchestrators and people ask a service."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter

Check = Callable[[], Awaitable[dict[str, Any]]]


def health_router(ready: Check, info: Check) -> APIRouter:
    """The three routes.

    Args:
        ready: returns what a reader of `/readyz` should see beside `"status": "ready"`; raises
            `NotReady` or another `Unavailable` while the service cannot answer.
        info: the body of `/info`: name, version, limits, what is served.
    """
    router = APIRouter(tags=["health"])

    @router.get("/livez", summary="The process runs")
    async def livez() -> dict[str, str]:
        return {"status": "live"}

    @router.get("/readyz", summary="The service can answer")
    async def readyz() -> dict[str, Any]:
        return {"status": "ready", **await ready()}

    @router.get("/info", summary="What is served, and within which limits")
    async def show_info() -> dict[str, Any]:
        return await info()

    return router
