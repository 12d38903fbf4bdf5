"""The shell that both services stand in: errors, request ids, body limit, metrics, traces, health, headers."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from fastapi import APIRouter, FastAPI

from services.platform.browsers import allow_origins, documents_router
from services.platform.health import Check, health_router
from services.platform.http import (
    REQUEST_ID_HEADER,
    BodyLimitMiddleware,
    JsonResponse,
    RequestIdMiddleware,
    install_error_handlers,
)
from services.platform.metrics import Metrics, MetricsMiddleware, route_of
from services.platform.settings import ServiceSettings
from services.platform.tracing import UNTRACED_SERVICE, TracedRequests, Tracing

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_service(
    *,
    title: str,
    version: str,
    description: str,
    settings: ServiceSettings,
    metrics: Metrics,
    routers: Sequence[APIRouter],
    ready: Check,
    info: Check,
    lifespan: Lifespan | None = None,
    tracing: Tracing | None = None,
    exposed_headers: Sequence[str] = (),
) -> FastAPI:
    """An application with a service's own routes and everything that all services answer alike.

    Args:
        title, version, description: for the OpenAPI document.
        settings: limits and logging.
        metrics: registry that `/metrics` shows.
        routers: the service's own routes.
        ready, info: see `services.platform.health.health_router`.
        lifespan: opened before the first request, closed after the last.
        tracing: records requests; stays the caller's to close.
        exposed_headers: of answers, that pages of other origins may read.
    """
    app = FastAPI(
        title=title,
        version=version,
        description=description,
        lifespan=lifespan,
        default_response_class=JsonResponse,
        telemetry=tracing.telemetry() if tracing else UNTRACED_SERVICE,
        docs_url=None,
        redoc_url=None,
    )
    for router in (
        *routers,
        health_router(ready, info),
        metrics.router(),
        documents_router(title),
    ):
        app.include_router(router)
        for route in router.routes:
            metrics.declare(route_of({"route": route}))
    install_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(
        BodyLimitMiddleware, max_bytes=settings.max_body_bytes, seconds=settings.max_body_seconds
    )
    app.add_middleware(RequestIdMiddleware, access_log=settings.access_log)
    if settings.cors_origins:
        exposed = (REQUEST_ID_HEADER, "retry-after", *exposed_headers)
        allow_origins(app, settings.cors_origins, exposed)
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    if tracing is not None:
        app.add_middleware(TracedRequests, tracing=tracing)
    return app
