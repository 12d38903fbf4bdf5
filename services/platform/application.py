"""The shell that both services stand in: errors, request ids, body limit, metrics, health."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from fastapi import APIRouter, FastAPI

from services.platform.health import Check, health_router
from services.platform.http import (
    BodyLimitMiddleware,
    JsonResponse,
    RequestIdMiddleware,
    install_error_handlers,
)
from services.platform.metrics import Metrics, MetricsMiddleware, route_of
from services.platform.settings import ServiceSettings

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
) -> FastAPI:
    """An application with a service's own routes and everything that all services answer alike.

    Args:
        title, version, description: for the OpenAPI document.
        settings: limits and logging.
        metrics: registry that `/metrics` shows.
        routers: the service's own routes.
        ready, info: see `services.platform.health.health_router`.
        lifespan: opened before the first request, closed after the last.
    """
    app = FastAPI(
        title=title,
        version=version,
        description=description,
        lifespan=lifespan,
        default_response_class=JsonResponse,
        redoc_url=None,
    )
    for router in (*routers, health_router(ready, info), metrics.router()):
        app.include_router(router)
        for route in router.routes:
            metrics.declare(route_of({"route": route}))
    install_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestIdMiddleware, access_log=settings.access_log)
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    return app
