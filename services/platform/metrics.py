"""Prometheus metrics: one registry an application, requests counted once by route and outcome."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
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

from services.platform.shared_metrics import ProcessFigures, WorkersCollector
from services.platform.worker import Worker

OUTCOME = "retrikt.outcome"
"""Key of the ASGI scope under which an error's stable code reaches the request counter."""

GONE = "client_gone"
"""Outcome of a request whose client went away before it had sent the whole of it."""

SECONDS_BUCKETS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


_REFRESHED_EVERY_SECONDS = 1.0


class Metrics:
    """The metrics of one application, or of all the workers that run it.

    Attributes:
        shared: whether other processes' are shown with them.
        registry: where an application registers what it counts beside requests.
        shown: what `/metrics` shows, and where an application registers what is the same for all workers.
        requests: `retrikt_<service>_requests_total{route, outcome}`; outcome is `ok`, an error's code, or `GONE`.
        seconds: `retrikt_<service>_request_seconds{route}`.
        in_flight: `retrikt_<service>_requests_in_flight`.

    Also `retrikt_<service>_build_info{version}`, and what the process takes (`process_…`, on Linux).
    """

    def __init__(self, service: str, worker: Worker | None = None) -> None:
        """Register them.

        Args:
            service: whose they are.
            worker: which of several this process is; all of them are shown then.
        """
        self.service = service
        self.shared = worker is not None
        self.registry = self.shown = CollectorRegistry()
        self._process: ProcessFigures | None = None
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []
        if worker is None:
            ProcessCollector(registry=self.registry)
        else:
            self.shown = CollectorRegistry()
            self.shown.register(WorkersCollector(worker.directory))
            self._process = ProcessFigures(self.registry)
        build = Gauge(
            f"retrikt_{service}_build_info",
            "1 for the version that runs.",
            ["version"],
            registry=self.registry,
            multiprocess_mode="livemax",
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
            multiprocess_mode="livesum",
        )

    def declare(self, route: str) -> None:
        """Show a route's metrics before its first request."""
        self.requests.labels(route, "ok")
        self.seconds.labels(route)

    def watch(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Have a gauge show what `read` returns: when it is asked for, or of several workers every second."""
        if self._process is None:
            gauge.set_function(read)
        else:
            self._watched.append((gauge, read))

    def refresh(self) -> None:
        """Note what is watched where all the workers see it; nothing where this is the only process."""
        if self._process is None:
            return
        for gauge, read in self._watched:
            gauge.set(float(read()))
        self._process.refresh()

    @asynccontextmanager
    async def refreshed(self) -> AsyncIterator[None]:
        """While it is open, other workers see what is watched here."""
        if self._process is None:
            yield
            return
        task = asyncio.create_task(self._keep_refreshing())
        try:
            yield
        finally:
            task.cancel()

    async def _keep_refreshing(self) -> None:
        while True:
            self.refresh()
            await asyncio.sleep(_REFRESHED_EVERY_SECONDS)

    def router(self) -> APIRouter:
        """`GET /metrics` in Prometheus' text format."""
        router = APIRouter()

        @router.get("/metrics", include_in_schema=False)
        def metrics() -> Response:
            self.refresh()
            return Response(generate_latest(self.shown), media_type=CONTENT_TYPE_LATEST)

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
