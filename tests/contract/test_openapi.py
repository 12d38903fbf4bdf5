"""Both services, as processes, against what their OpenAPI documents say, with requests that Schemathesis makes.

A short, reproducible look by default; RETRIKT_CONTRACT_EXAMPLES=200 takes a long one.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tiny_release import DIMENSIONS, TASK
from tiny_task import Service, TinyTask, build_task, store, student

EXAMPLES = int(os.environ.get("RETRIKT_CONTRACT_EXAMPLES", "6"))
"""Requests an operation that fit its description, and as many that do not."""

UNAVAILABLE = 503
"""The one status of its kind that a service may answer: a part of it is away, or late."""

CONFORMANCE = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TinyTask:
    return build_task(tmp_path_factory.mktemp("contract") / TASK)


@pytest.fixture(scope="module", params=["store", "student"])
def service(request: pytest.FixtureRequest, task: TinyTask) -> Iterator[Service]:
    kept = {name: task.directory / name for name in ("releases", "snapshots")}
    with store(task, **kept) if request.param == "store" else student(task) as service:
        yield service


def known_names(task: TinyTask) -> dict[str, st.SearchStrategy[Any]]:
    """What a path's placeholders mean here: made-up ones alone would all be answered 404."""
    version = task.releases.get(task.one).store_version
    return {
        "version": st.sampled_from(["live", version, task.one]),
        "identifier": st.sampled_from([0, 59, 60]),
        "release": st.sampled_from([task.one, task.two]),
        "model": st.just(TASK),
    }


def with_known_names(draw: st.DrawFn, case: Case, task: TinyTask) -> Case:
    """The case itself, half of the time with names that are there and vectors of the right length."""
    if not draw(st.booleans()):
        return case
    known = known_names(task)
    for name in case.path_parameters:
        if name in known:
            case.path_parameters[name] = draw(known[name])
    body = case.body
    if isinstance(body, dict) and isinstance(body.get("vectors"), list):
        number = st.floats(-1, 1, width=32)
        row = st.lists(number, min_size=DIMENSIONS, max_size=DIMENSIONS)
        case.body = body | {"vectors": draw(st.lists(row, min_size=1, max_size=3))}
    return case


def can_fail_to_fit(operation: APIOperation[Any, Any, Any, Any]) -> bool:
    """Whether it has a part that not just any text is good for."""
    told = operation.definition.raw
    types = [parameter["schema"]["type"] for parameter in told.get("parameters", [])]
    return "requestBody" in told or any(name != "string" for name in types)


def test_no_request_makes_a_service_answer_what_its_document_does_not_say(
    service: Service, task: TinyTask, subtests: pytest.Subtests
) -> None:
    url = f"http://127.0.0.1:{service.port}"
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode if can_fail_to_fit(operation) else [GenerationMode.POSITIVE]:
            with subtests.test(operation.label, mode=mode.value):

                @settings(
                    max_examples=EXAMPLES,
                    derandomize=True,
                    database=None,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
                def ask(case: Case, data: st.DataObject) -> None:
                    case = with_known_names(data.draw, case, task)
                    answer = case.call()
                    if answer.status_code != UNAVAILABLE:
                        case.validate_response(answer, checks=[not_a_server_error])
                    case.validate_response(answer, checks=CONFORMANCE)

                ask()
    assert service.process.poll() is None
