"""The store service as an ASGI application, and as a process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware

from services.platform.application import create_service
from services.platform.auth import Keys
from services.platform.errors import InvalidConfig
from services.platform.server import serve
from services.platform.tracing import Tracing, open_tracing
from services.releases.directory import ReleaseDirectory
from services.releases.live_metric import LiveReleaseMetric
from services.store.backends.base import StoreBackend
from services.store.fast_path import FastPathMiddleware
from services.store.knowledge_store import KnowledgeStore
from services.store.metrics import StoreMetrics
from services.store.release_routes import release_router
from services.store.routes import store_router
from services.store.searching import Searches
from services.store.settings import StoreSettings
from services.store.snapshot_routes import snapshot_router
from services.store.snapshots import SnapshotDirectory
from services.store.workers import Workers
from services.store.writing import refuse_open_writing

DESCRIPTION = "Finds the knowledge items nearest to a student's query vectors, in named versions."

_WAITING_SWITCHES = 8


def create_app(settings: StoreSettings, tracing: Tracing | None = None) -> FastAPI:
    """The application; the backend is closed after its last request.

    Args:
        settings: which backend, where its versions are, limits, keys.
        tracing: records requests, and is closed with the application.

    Raises:
        InvalidConfig: a key is none, or others than this machine could write without one.
    """
    keys = Keys.from_settings(settings)
    refuse_open_writing(keys, settings)
    store = open_store(settings)
    workers = Workers(settings.threads, settings.max_waiting, settings.request_timeout_seconds)
    # A switch hashes a whole release and waits for other writers: no search is to wait for that.
    switches = Workers(1, _WAITING_SWITCHES, settings.request_timeout_seconds)
    # Snapshots are made and restored one at a time: a second one is asked to come back later.
    slow = Workers(1, 1)
    metrics = StoreMetrics(settings.max_waiting)
    metrics.waiting.set_function(lambda: workers.waiting)
    searches = Searches(store, workers, settings, keys, metrics)
    if settings.releases is not None:
        LiveReleaseMetric("store", ReleaseDirectory(settings.releases), metrics.requests.registry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            workers.close()
            switches.close()
            slow.close()
            store.close()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    async def ready() -> dict[str, Any]:
        # Ready with or without versions, as the first comes with the first release; and past the
        # queue, as a busy service is no broken one.
        return {"versions": len(await asyncio.to_thread(store.versions))}

    async def info() -> dict[str, Any]:
        return {
            "name": "retrikt-store",
            "version": version("retrikt"),
            "backend": settings.backend,
            "limits": {
                "max_batch": settings.max_batch,
                "max_k": settings.max_k,
                "max_ids": settings.max_ids,
                "max_body_bytes": settings.max_body_bytes,
                "max_waiting": settings.max_waiting,
                "request_timeout_seconds": settings.request_timeout_seconds,
            },
            "read_only": settings.read_only,
        }

    app = create_service(
        title="RetriKT store",
        version=version("retrikt"),
        description=DESCRIPTION,
        settings=settings,
        metrics=metrics.requests,
        routers=[
            store_router(store, searches, workers, settings, keys),
            release_router(store, workers, switches, settings, keys),
            snapshot_router(store, workers, slow, settings, keys),
        ],
        ready=ready,
        info=info,
        lifespan=lifespan,
        tracing=tracing,
    )
    # The last one of the list is the innermost: inside of ids, metrics and the body's limit.
    app.user_middleware.append(Middleware(FastPathMiddleware, searches=searches))
    return app


def open_store(settings: StoreSettings) -> KnowledgeStore:
    """The store that the settings name."""
    return KnowledgeStore(
        open_backend(settings),
        releases=ReleaseDirectory(settings.releases) if settings.releases else None,
        snapshots=SnapshotDirectory(settings.snapshots) if settings.snapshots else None,
    )


def open_backend(settings: StoreSettings) -> StoreBackend:
    """The backend that the settings name; the other one's libraries are not loaded."""
    if settings.backend == "server":
        from services.store.backends.server import ServerBackend

        if settings.qdrant_url is None or settings.task is None:
            raise InvalidConfig("The backend server needs a URL and a task.")
        key = settings.qdrant_api_key
        return ServerBackend.connect(
            settings.qdrant_url,
            settings.task,
            api_key=key.get_secret_value() if key else None,
            prefer_grpc=settings.qdrant_grpc,
            grpc_port=settings.qdrant_grpc_port,
            timeout=settings.qdrant_timeout_seconds,
        )
    from services.store.backends.edge import EdgeBackend

    if settings.directory is None:
        raise InvalidConfig("The backend edge needs a directory.")
    releases = settings.releases
    return EdgeBackend(
        settings.directory,
        knowledge=ReleaseDirectory(releases).knowledge_of_version if releases else None,
        private=settings.private_directory,
        keep_open=settings.keep_open,
    )


def run(settings: StoreSettings, *, on_bound: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM, then finish the requests under way; see `services.platform.server.serve`."""
    serve(lambda: create_app(settings, open_tracing("retrikt-store")), settings, on_bound=on_bound)
