"""OpenTelemetry traces: off unless the standard OTEL_* variables name where they are sent.

FastAPI makes the span of a request, with the caller's `traceparent` as its parent;
`services.platform.spans` makes those below it.
"""

import os
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog
from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from starlette.types import ASGIApp, Receive, Scope, Send

from services.platform.errors import InvalidConfig
from services.platform.spans import tracing_with

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = structlog.get_logger(__name__)

PROTOCOL = "http/protobuf"
UNTRACED = frozenset({"/livez", "/readyz", "/health", "/info", "/metrics"})
"""Paths that machines ask every few seconds; nobody wants a trace of that."""

_LAST_SECONDS = 3.0
"""How long the end of a service waits for the last spans to be taken."""


class Tracing:
    """The traces of one service."""

    def __init__(self, provider: "TracerProvider") -> None:
        """Trace with the SDK's provider, which `close` shuts down."""
        self._provider = provider
        self.tracer = provider.get_tracer("retrikt", version("retrikt"))

    def telemetry(self) -> TelemetryConfig:
        """What makes FastAPI record requests."""
        return {**UNTRACED_SERVICE, "tracing": True, "tracer_provider": self._provider}

    def close(self) -> None:
        """Send what has not been sent, for a few seconds at the most."""
        last = threading.Thread(target=self._provider.shutdown, daemon=True, name="last-spans")
        last.start()
        last.join(_LAST_SECONDS)


UNTRACED_SERVICE: TelemetryConfig = {
    "tracing": False,
    # Prometheus counts; what FastAPI would log of a faulty request holds the request.
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
    "exclude": lambda scope: scope.get("path") in UNTRACED,
}
"""FastAPI's telemetry where there are no traces: none."""


def open_tracing(service: str) -> Tracing | None:
    """Traces as the environment asks for them; None where it names no endpoint, or says not to.

    Read are OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_TRACES_EXPORTER (`otlp`
    or `none`), OTEL_EXPORTER_OTLP_PROTOCOL (`http/protobuf`), OTEL_SDK_DISABLED, OTEL_SERVICE_NAME; by
    OpenTelemetry's own SDK also the samplers, headers, resource attributes and the sizes of its queue.

    Args:
        service: the service's name where OTEL_SERVICE_NAME gives none.

    Raises:
        InvalidConfig: what is asked for is not to be had.
    """
    if not _wanted():
        return None
    # A tenth of a second and 10 MB that only those pay who want traces.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource.create().attributes.get("service.name", "")
    attributes = {"service.version": version("retrikt")}
    if str(named).startswith("unknown_service"):
        attributes["service.name"] = service
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    log.info("tracing", name=attributes.get("service.name", named))
    return Tracing(provider)


def _wanted() -> bool:
    given = os.environ.get
    endpoint = given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or given("OTEL_EXPORTER_OTLP_ENDPOINT")
    exporter = given("OTEL_TRACES_EXPORTER") or "otlp"
    disabled = (given("OTEL_SDK_DISABLED") or "").strip().lower() == "true"
    if disabled or exporter == "none" or not endpoint:
        return False
    if exporter != "otlp":
        raise InvalidConfig(
            f"OTEL_TRACES_EXPORTER is {exporter!r}.", hint="Traces are sent by otlp, or none."
        )
    protocol = given("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or given("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", PROTOCOL):
        raise InvalidConfig(
            f"The protocol of OpenTelemetry's exporter is {protocol!r}.",
            hint=f"Expected {PROTOCOL}, at the collector's port for that (4318).",
        )
    if not endpoint.startswith(("http://", "https://")):
        raise InvalidConfig(
            f"The endpoint of OpenTelemetry's exporter is {endpoint!r}.",
            hint="Expected a URL such as http://collector:4318.",
        )
    return True


class TracedRequests:
    """Lets `span` work within the requests that FastAPI traces; an application's outermost middleware."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracer = tracing.tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Also where it is not recorded: the store has to be told so.
        if not trace.get_current_span().get_span_context().is_valid:
            await self._app(scope, receive, send)
            return
        with tracing_with(self._tracer):
            await self._app(scope, receive, send)
