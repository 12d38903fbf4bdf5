"""Prometheus metrics: one registry an application, requests counted once by route and outcome."""

import time
from importlib.metadata import version

from fastapi import APIRouter, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OUTCOME = "retrikt.outcome"
"""Key of the ASGI scope under which an error's stable code reaches the request counter."""

GONE = "client_gone"
"""Outcome of a request whose client went away before it had sent the whole of it."""

SECONDS_BUCKETS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


class Metrics:
    """The metrics of one application.

    Attributes:
        registry: where an application registers what it counts beside requests.
        requests: `retrikt_<service>_requests_total{route, outcome}`; outcome is `ok`, an error's code, or `GONE`.
        seconds: `retrikt_<service>_request_seconds{route}`.
        in_flight: `retrikt_<service>_requests_in_flight`.

    Also `retrikt_<service>_build_info{version}`, and what the process takes (`process_…`, on Linux).
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build = Gauge(
            f"retrikt_{service}_build_info",
            "1 for the version that runs.",
            ["version"],
            registry=self.registry,
        )
        build.labels(version("retrikt")).set(1)
        self.requests = Counter(
            f"retrikt_{service}_requests",
            "Requests by route and outcome (ok, or the code of the error).",
            ["route", "outcome"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            f"retrikt_{service}_request_seconds",
            "Seconds from the request's head to the answer's end, by route.",
            ["route"],
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            f"retrikt_{service}_requests_in_flight",
            "Requests that are being answered.",
            registry=self.registry,
        )

    def declare(self, route: str) -> None:
        """Show a route's metrics before its first request."""
        self.requests.labels(route, "ok")
        self.seconds.labels(route)

    def router(self) -> APIRouter:
        """`GET /metrics` in Prometheus' text format."""
        router = APIRouter()

        @router.get("/metrics", include_in_schema=False)
        def metrics() -> Response:
            return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

        return router


class MetricsMiddleware:
    """Counts and times every request; sits outside of everything that may answer one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._known: dict[tuple[str, str], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, watch)
        finally:
            self._metrics.in_flight.dec()
            outcome = scope.get(OUTCOME) or ("ok" if status < 400 else f"status_{status}")
            requests, seconds = self._of(route_of(scope), outcome)
            requests.inc()
            seconds.observe(time.perf_counter() - started)

    def _of(self, route: str, outcome: str) -> tuple[Counter, Histogram]:
        """The two metrics of a route and outcome; looking them up costs more than counting does."""
        found = self._known.get((route, outcome))
        if found is None:
            metrics = self._metrics
            found = (metrics.requests.labels(route, outcome), metrics.seconds.labels(route))
            self._known[route, outcome] = found
        return found


def route_of(scope: Scope) -> str:
    """The route's template (`/v1/versions/{version}`), so that no user's path becomes a label."""
    return getattr(scope.get("route"), "path", "unmatched")
