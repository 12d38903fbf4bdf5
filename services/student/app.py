"""The prediction service as an ASGI application, and as a process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.middleware import Middleware

from services.platform.application import create_service
from services.platform.errors import InvalidData
from services.platform.server import serve
from services.platform.supervisor import serve_by_workers
from services.platform.tracing import Tracing, open_tracing
from services.platform.worker import Worker
from services.releases.directory import ReleaseDirectory
from services.releases.live_metric import LiveReleaseMetric
from services.store.client import EmbeddedStoreClient, HttpStoreClient, StoreClient
from services.student.examples import Example, read_examples
from services.student.fast_path import FastPathMiddleware
from services.student.infer_routes import HEADER_LENGTH, infer_router
from services.student.metrics import StudentMetrics
from services.student.page_routes import page_router
from services.student.routes import DEGRADED_HEADER, RELEASE_HEADER, predict_router
from services.student.service import PredictionService
from services.student.settings import StudentSettings

log = structlog.get_logger(__name__)

TITLE = "RetriKT student"
DESCRIPTION = (
    """Classifies texts with a tiny student that looks up what a large language model knows."""
)


def create_app(
    settings: StudentSettings, tracing: Tracing | None = None, worker: Worker | None = None
) -> FastAPI:
    """The application; releases are followed from its start to its end.

    Args:
        settings: where the task's releases are, how the store is reached, limits.
        tracing: records requests, and is closed with the application.
        worker: which of several this process is; their metrics are shown as one then.
    """
    metrics = StudentMetrics(settings.max_waiting_texts, workers=settings.workers, worker=worker)
    LiveReleaseMetric(
        "student", ReleaseDirectory(settings.task_dir / "releases"), metrics.requests.shown
    )
    client = open_store(settings)
    service = PredictionService(settings, client, metrics)
    examples = _examples(settings.task_dir)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            async with metrics.requests.refreshed():
                yield
        finally:
            await service.close()
            client.close()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    async def ready() -> dict[str, Any]:
        return service.state()

    async def info() -> dict[str, Any]:
        return {**service.info(), "examples": examples}

    app = create_service(
        title=TITLE,
        version=version("retrikt"),
        description=DESCRIPTION,
        settings=settings,
        metrics=metrics.requests,
        routers=[predict_router(service), infer_router(service), page_router()],
        ready=ready,
        info=info,
        lifespan=lifespan,
        tracing=tracing,
        exposed_headers=(RELEASE_HEADER, DEGRADED_HEADER, HEADER_LENGTH.lower()),
    )
    # The last one of the list is the innermost: inside of ids, metrics and the body's limit.
    app.user_middleware.append(Middleware(FastPathMiddleware, service=service))
    return app


def open_store(settings: StudentSettings) -> StoreClient:
    """The store service where a URL is set, else the task's store versions in this process."""
    if settings.store_url is not None:
        # Searches have a limit of their own; this one is for what no request waits for.
        return HttpStoreClient(
            settings.store_url,
            timeout=max(2.0, settings.store_timeout_seconds),
            key=settings.key_of_store(),
        )
    releases = ReleaseDirectory(settings.task_dir / "releases")
    return EmbeddedStoreClient.edge(
        settings.task_dir / "store", knowledge=releases.knowledge_of_version
    )


def _examples(task_dir: Path) -> list[Example]:
    try:
        return read_examples(task_dir)
    except InvalidData as error:
        # The page can do without; what it shows is no reason not to serve.
        log.warning("examples_left_out", reason=str(error))
        return []


def run(settings: StudentSettings, *, on_bound: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM, then finish the requests under way; see `services.platform.server.serve`, or for
    several workers `services.platform.supervisor.serve_by_workers`."""
    if settings.workers == 1:
        serve(partial(_traced_app, settings), settings, on_bound=on_bound)
    else:
        create = partial(_traced_app, settings)
        serve_by_workers(
            "student",
            create,
            settings,
            settings.workers,
            hang_seconds=settings.worker_hang_seconds,
            on_bound=on_bound,
        )


def _traced_app(settings: StudentSettings, worker: Worker | None = None) -> FastAPI:
    return create_app(settings, open_tracing("retrikt-student"), worker)
