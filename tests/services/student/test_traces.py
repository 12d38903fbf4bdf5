"""Traces over both services: one trace from the request to the store's engine, and nothing when they are off."""

import asyncio
import http.server
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import tiny_task
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from tiny_task import TinyTask, free_port, until

from services.platform.errors import InvalidConfig, StoreUnavailable
from services.platform.server import bind, url_of
from services.platform.spans import batch_span, origin, span, traceparent, tracing_with
from services.platform.tracing import Tracing, open_tracing
from services.store.app import create_app as create_store
from services.store.client import HttpStoreClient
from services.store.settings import StoreSettings
from services.student.app import create_app as create_student
from services.student.settings import StudentSettings

TEXT = "wifi slow password"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
STEPS = ("tokenize", "encode", "search", "mix")


class Recorded:
    """What two services sent to one exporter."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()

    def tracing(self, service: str) -> Tracing:
        provider = TracerProvider(resource=Resource({"service.name": service}))
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        return Tracing(provider)

    def spans(self, name: str = "", service: str = "") -> list[ReadableSpan]:
        return [
            found
            for found in self._exporter.get_finished_spans()
            if name in ("", found.name)
            and service in ("", found.resource.attributes["service.name"])
        ]

    def one(self, name: str, service: str = "student") -> ReadableSpan:
        (found,) = self.spans(name, service)
        return found

    def clear(self) -> None:
        self._exporter.clear()


def number(found: ReadableSpan) -> int:
    assert found.context is not None
    return found.context.span_id


def is_child(found: ReadableSpan, parent: ReadableSpan) -> bool:
    return found.parent is not None and found.parent.span_id == number(parent)


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """An application on a port of its own."""
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield url_of(listener)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture(scope="module")
def student(
    built_task: TinyTask, recorded: Recorded, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FastAPI]:
    """The student's application, asking the store's over HTTP."""
    settings = StoreSettings(
        directory=built_task.directory / "store",
        private_directory=tmp_path_factory.mktemp("private"),
        access_log=False,
    )
    with running(create_store(settings, recorded.tracing("store"))) as url:
        asking = StudentSettings(
            task_dir=built_task.directory,
            store_url=url,
            store_timeout_seconds=30,
            request_timeout_seconds=60,
            access_log=False,
        )
        yield create_student(asking, recorded.tracing("student"))


@pytest.fixture(scope="module")
def running_student(student: FastAPI) -> Iterator[TestClient]:
    with TestClient(student) as client:
        yield client


@pytest.fixture
def client(running_student: TestClient, recorded: Recorded) -> TestClient:
    recorded.clear()
    return running_student


def test_a_request_is_one_trace_from_its_caller_through_every_step_into_the_store(
    client: TestClient, recorded: Recorded
) -> None:
    answer = client.post("/predict", json={"inputs": TEXT}, headers=CALLER)
    assert answer.status_code == 200
    # Its answer is sent a moment before the store's span of it ends.
    until(lambda: [found for found in recorded.spans(service="store") if "POST" in found.name])
    request, batch = recorded.one("POST /predict"), recorded.one("batch")
    assert request.parent is not None
    assert request.parent.span_id == int(PARENT, 16)
    assert is_child(batch, request)
    assert is_child(recorded.one("wait"), request)
    for step in STEPS:
        assert is_child(recorded.one(step), batch)
    (call,) = (found for found in recorded.spans(service="student") if "/v1/versions" in found.name)
    assert is_child(call, recorded.one("search"))
    (asked,) = (found for found in recorded.spans(service="store") if found.name.startswith("POST"))
    assert is_child(asked, call)
    assert is_child(recorded.one("search", "store"), asked)
    assert {found.context.trace_id for found in recorded.spans() if found.context} == {
        int(TRACE, 16)
    }


def test_spans_say_which_release_answered_and_never_what_was_asked(
    client: TestClient, recorded: Recorded, built_task: TinyTask
) -> None:
    client.post("/predict", json={"inputs": TEXT, "explain": True}, headers=CALLER)
    about = recorded.one("POST /predict").attributes or {}
    assert about["http.route"] == "/predict"
    assert about["retrikt.release"] == built_task.one
    assert about["retrikt.texts"] == 1
    assert about["http.response.status_code"] == 200
    shown = " ".join(found.to_json() for found in recorded.spans())
    assert not any(word in shown for word in TEXT.split())


def test_a_search_for_many_requests_is_in_one_trace_and_linked_from_and_to_the_others(
    student: FastAPI, client: TestClient, recorded: Recorded
) -> None:
    async def burst() -> None:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(student), base_url="http://student"
        ) as http:
            await asyncio.gather(*(http.post("/predict", json={"inputs": TEXT}) for _ in range(12)))

    def shared() -> Sequence[ReadableSpan]:
        return [batch for batch in recorded.spans("batch") if batch.links]

    for _ in range(50):
        recorded.clear()
        asyncio.run(burst())
        if shared():
            break
    batch = shared()[0]
    requests = {number(found): found for found in recorded.spans("POST /predict")}
    assert len(requests) == 12
    assert len(recorded.spans("wait")) == 12
    assert batch.parent is not None
    assert batch.parent.span_id in requests
    assert (batch.attributes or {})["retrikt.requests"] == len(batch.links) + 1
    for link in batch.links:
        other = requests[link.context.span_id]
        assert other.context is not None
        assert other.context.trace_id != batch.parent.trace_id
        assert [back.context.span_id for back in other.links] == [number(batch)]


def test_a_request_that_its_caller_does_not_record_leaves_no_span_in_either_service(
    client: TestClient, recorded: Recorded
) -> None:
    unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    since = time.time_ns()
    assert client.post("/predict", json={"inputs": TEXT}, headers=unsampled).status_code == 200
    for path in ("/livez", "/readyz", "/info", "/metrics", "/health"):
        assert client.get(path, headers=CALLER).status_code == 200
    time.sleep(0.2)  # a span may end after its answer was sent, those of the test before too
    assert [found.name for found in recorded.spans() if (found.start_time or 0) >= since] == []


def test_a_fault_leaves_its_code_in_the_span_and_no_message(
    client: TestClient, recorded: Recorded
) -> None:
    assert client.post("/predict", json={"inputs": [TEXT, TEXT]}).status_code == 422
    request = recorded.one("POST /predict")
    assert (request.attributes or {})["retrikt.code"] == "invalid_request"
    assert not request.events
    assert not request.status.description


def test_why_an_answer_was_given_without_the_store_is_in_the_search_s_span(
    built_task: TinyTask, recorded: Recorded
) -> None:
    settings = StudentSettings(
        task_dir=built_task.directory, store_url="http://127.0.0.1:1", access_log=False
    )
    with TestClient(create_student(settings, recorded.tracing("student"))) as client:
        recorded.clear()
        answer = client.post("/predict", json={"inputs": TEXT})
        assert answer.headers["x-retrikt-degraded"] == "store_unavailable"
    about = recorded.one("search").attributes or {}
    assert about["retrikt.degraded"] == "store_unavailable"
    assert not recorded.spans("mix")


def test_a_call_of_a_store_that_is_away_is_a_failed_span_with_the_error_s_code() -> None:
    recorded = Recorded()
    tracer = recorded.tracing("student").tracer
    client = HttpStoreClient("http://127.0.0.1:1")
    with (
        tracer.start_as_current_span("request"),
        tracing_with(tracer),
        pytest.raises(StoreUnavailable),
    ):
        client.check("v-1", "sha256:0")
    client.close()
    call = recorded.one("GET /v1/versions/v-1")
    assert call.kind is SpanKind.CLIENT
    assert call.status.status_code is StatusCode.ERROR
    assert (call.attributes or {})["error.type"] == "store_unavailable"
    assert not call.events


def test_without_a_traced_request_a_span_is_nothing_and_carries_nothing() -> None:
    with span("step") as nothing:
        assert not nothing.is_recording()
        assert traceparent() == ()


def test_a_trace_that_is_not_recorded_is_carried_on_as_such() -> None:
    silent = Tracing(TracerProvider(sampler=ALWAYS_OFF))
    with (
        silent.tracer.start_as_current_span("request"),
        tracing_with(silent.tracer),
        batch_span("batch", [None, origin()]),
        span("step") as step,
    ):
        assert not step.is_recording()
        ((name, value),) = traceparent()
    assert name == b"traceparent"
    assert int(value[-2:], 16) & 1 == 0, "the flag that says recorded"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_there_are_no_traces_unless_the_environment_asks_for_them(
    environment: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    assert open_tracing("retrikt-student") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318"),
    ],
)
def test_what_the_environment_asks_for_and_cannot_be_had_ends_the_start(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    environment.setenv(name, value)
    with pytest.raises(InvalidConfig, match=value):
        open_tracing("retrikt-student")


class Collector(http.server.BaseHTTPRequestHandler):
    """Keeps what OTLP exporters send."""

    taken: list[ExportTraceServiceRequest]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.taken.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("workers", [1, 2])
def test_the_service_as_shipped_sends_its_spans_to_the_endpoint_the_last_ones_at_its_end(
    task: TinyTask, environment: pytest.MonkeyPatch, workers: int
) -> None:
    taken: list[ExportTraceServiceRequest] = []
    handler = type("Kept", (Collector,), {"taken": taken})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        environment.setenv(
            "OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}"
        )
        environment.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        environment.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "process")
        with tiny_task.student(task, workers=workers) as service:
            url = f"http://127.0.0.1:{service.port}/predict"
            answered = 0
            # A connection for each, until every worker has had one.
            while answered < workers:
                answer = httpx.post(url, json={"inputs": TEXT}, headers=CALLER, trust_env=False)
                assert answer.status_code == 200
                answered = len(service.answered())
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(120) == 0
            assert TRACE in service.events()
        collector.shutdown()
    sent = [resource for request in taken for resource in request.resource_spans]
    names = {
        found.name for resource in sent for scope in resource.scope_spans for found in scope.spans
    }
    assert {"POST /predict", "batch", *STEPS} <= names
    about = {entry.key: entry.value.string_value for entry in sent[0].resource.attributes}
    assert about["service.name"] == "retrikt-student"
    processes = {
        entry.value.int_value
        for resource in sent
        for entry in resource.resource.attributes
        if entry.key == "process.pid"
    }
    assert len(processes) == workers


def test_a_collector_that_is_away_costs_no_answer_and_does_not_hold_up_the_end(
    task: TinyTask, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with tiny_task.student(task) as service:
        for _ in range(5):
            assert service.predict(TEXT).status_code == 200
        until(lambda: "export" in service.events())
        assert service.predict(TEXT).status_code == 200
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(120) == 0
