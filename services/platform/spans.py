"""Spans of what happens within a request, where OpenTelemetry traces it.

`span` and `note` do something only in the context of a request to a service that traces
(`services.platform.tracing`); everywhere else they cost a look at one context variable. Whether a trace
is recorded is its sampler's to say, once, where it begins; who is called is told either way.

A batch answers several requests with one search. Its span belongs to the trace of the first of them that
is recorded and has links to the others, which have one to it: so a request that was alone has all of it
in its own trace, and a trace is either whole or not there.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import structlog
from opentelemetry import propagate, trace
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, StatusCode, Tracer

from services.platform.errors import RetriktError

Value = str | int | float | bool

_NOTHING: AbstractContextManager[Span] = nullcontext(INVALID_SPAN)
_tracer: ContextVar[Tracer | None] = ContextVar("retrikt_tracer", default=None)


@contextmanager
def tracing_with(tracer: Tracer) -> Iterator[None]:
    """Let `span` work in this context."""
    token = _tracer.set(tracer)
    try:
        yield
    finally:
        _tracer.reset(token)


def span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, **attributes: Value
) -> AbstractContextManager[Span]:
    """A span around a step, where the request is traced. Errors leave their code in it, no message."""
    tracer = _tracer.get()
    return _NOTHING if tracer is None else _span(tracer, name, kind, attributes)


@contextmanager
def _span(
    tracer: Tracer, name: str, kind: SpanKind, attributes: Mapping[str, Value]
) -> Iterator[Span]:
    with tracer.start_as_current_span(
        name,
        kind=kind,
        attributes=attributes,
        # A message may name what a caller sent.
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except Exception as error:
            code = error.code if isinstance(error, RetriktError) else type(error).__qualname__
            current.set_attribute("error.type", code)
            current.set_status(StatusCode.ERROR)
            raise


def note(**attributes: Value) -> None:
    """Attributes of the span that is open, under `retrikt.…`, where the request is traced."""
    if _tracer.get() is not None:
        trace.get_current_span().set_attributes(
            {f"retrikt.{name}": value for name, value in attributes.items()}
        )


def name_request(method: str, route: str) -> None:
    """Name a request that no route of FastAPI's was looked up for."""
    if _tracer.get() is not None:
        request = trace.get_current_span()
        request.update_name(f"{method} {route}")
        request.set_attribute("http.route", route)


def traceparent() -> Sequence[tuple[bytes, bytes]]:
    """Headers that carry the trace to another service, and whether it is recorded; none without a trace."""
    if _tracer.get() is None:
        return ()
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return [(name.encode(), value.encode("latin-1")) for name, value in carrier.items()]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a job of a batch comes from, and when (nanoseconds since the epoch) it began to wait."""

    tracer: Tracer
    span: Span
    at: int


def origin() -> Origin | None:
    """What `batch_span` has to know of a request that is traced; None of another."""
    tracer = _tracer.get()
    return None if tracer is None else Origin(tracer, trace.get_current_span(), time.time_ns())


def batch_span(name: str, origins: Sequence[Origin | None]) -> AbstractContextManager[Span]:
    """A span around what answers several requests at once, on whatever thread that is.

    Each request that is recorded also gets a span `wait`, from its `origin` until now.
    """
    traced = [found for found in origins if found is not None]
    return _batch(name, traced, len(origins)) if traced else _NOTHING


@contextmanager
def _batch(name: str, traced: Sequence[Origin], requests: int) -> Iterator[Span]:
    recorded = [found for found in traced if found.span.is_recording()]
    for waited in recorded:
        within = trace.set_span_in_context(waited.span)
        waited.tracer.start_span("wait", within, start_time=waited.at).end()
    first, others = (recorded or traced)[0], recorded[1:]
    with (
        tracing_with(first.tracer),
        first.tracer.start_as_current_span(
            name,
            trace.set_span_in_context(first.span),
            attributes={"retrikt.requests": requests},
            links=[Link(other.span.get_span_context()) for other in others],
            record_exception=False,
            set_status_on_exception=False,
        ) as current,
    ):
        for other in others:
            other.span.add_link(current.get_span_context())
        yield current


def ids_in_log(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Put the ids of the trace and span into a log line, where the request is traced."""
    if _tracer.get() is not None:
        context = trace.get_current_span().get_span_context()
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event
