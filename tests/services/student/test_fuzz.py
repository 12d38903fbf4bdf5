"""Whatever is sent to be classified is answered or refused: by the readers of requests, and through the application.

A short look by default; RETRIKT_FUZZ_EXAMPLES=5000 takes a long one, each of these tests with that many bodies.
"""

import json
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_release import LABELS, TASK
from tiny_task import build_task

from services.platform.errors import BatchTooLarge, InvalidRequest
from services.student.app import create_app
from services.student.infer_request import read_infer_request
from services.student.infer_routes import HEADER_LENGTH
from services.student.predict_request import FIELDS, PARAMETERS, read_predict_request
from services.student.settings import StudentSettings

MOST = 3
"""Inputs that a request may hold."""

EXAMPLES = int(os.environ.get("RETRIKT_FUZZ_EXAMPLES", "100"))
fuzz = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

TEXTS = (
    st.text(max_size=6)
    | st.text(st.characters(), min_size=1, max_size=40)
    | st.sampled_from(
        ["wifi slow", "printer " * 60, "\x00", "\ud800", " \u2003\n", "\ufeffa", "a" * 9000]
    )
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.integers()
    | st.floats()
    | TEXTS
    | st.sampled_from(["softmax", "none", "sigmoid", "left", "Right", "text", "BYTES"])
)
NAMES = st.sampled_from([*FIELDS, *PARAMETERS, "name", "shape", "data", "datatype", "é"])
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def maybe(likely: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What belongs there, or once in a while anything else."""
    return st.integers(0, 9).flatmap(lambda dice: JSON if dice == 0 else likely)


def written(content: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """As JSON by a client that sends lone surrogates, NaN and numbers of any size too."""
    return content.map(lambda value: json.dumps(value).encode())


@st.composite
def damaged(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    """A body cut off, or with some of its bytes replaced."""
    body = draw(bodies)
    start = draw(st.integers(0, len(body)))
    end = draw(st.integers(start, min(len(body), start + 4)))
    return body[:start] + draw(st.binary(max_size=4)) + (body[end:] if draw(st.booleans()) else b"")


INPUTS = (
    TEXTS | st.lists(TEXTS, min_size=1, max_size=2)
    | st.lists(maybe(st.lists(maybe(TEXTS), min_size=1, max_size=2)), min_size=1, max_size=MOST + 1)
)  # fmt: skip
PREDICT = written(
    maybe(
        st.fixed_dictionaries(
            {"inputs": maybe(INPUTS)},
            optional={
                "raw_scores": maybe(st.booleans()),
                "truncate": maybe(st.booleans() | st.none()),
                "truncation_direction": maybe(st.sampled_from(["Left", "Right", "left"])),
                "parameters": maybe(
                    st.fixed_dictionaries(
                        {},
                        optional={
                            "top_k": maybe(st.integers(1, 5)),
                            "function_to_apply": maybe(st.sampled_from(["softmax", "none"])),
                        },
                    )
                ),
                "partial": maybe(st.booleans()),
                "explain": maybe(st.booleans()),
            },
        )
    )
)
PREDICT_BODIES = PREDICT | damaged(PREDICT) | st.binary(max_size=64)


def element(text: str) -> bytes:
    """Of a binary tensor."""
    return struct.pack("<I", len(text.encode())) + text.encode()


TENSOR = st.fixed_dictionaries(
    {
        "name": maybe(st.sampled_from(["text", "text", "text_pair"])),
        "datatype": maybe(st.just("BYTES")),
        "shape": maybe(st.lists(st.integers(0, 4), min_size=1, max_size=2)),
    },
    optional={
        "data": maybe(st.lists(maybe(TEXTS), max_size=MOST + 1)),
        "parameters": maybe(
            st.fixed_dictionaries({}, optional={"binary_data_size": maybe(st.integers(-2, 20))})
        ),
    },
)
OUTPUT = st.fixed_dictionaries(
    {"name": maybe(st.sampled_from(["label", "score"]))},
    optional={
        "parameters": maybe(
            st.fixed_dictionaries(
                {}, optional={"binary_data": maybe(st.booleans()), "classification": JSON}
            )
        )
    },
)


def infer_body(inputs: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"inputs": inputs},
        optional={
            "outputs": maybe(st.lists(maybe(OUTPUT), max_size=2)),
            "parameters": maybe(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "top_k": maybe(st.integers(1, 5)),
                        "truncate": maybe(st.booleans()),
                        "raw_scores": maybe(st.booleans()),
                        "binary_data_output": maybe(st.booleans()),
                    },
                )
            ),
            "id": maybe(st.text(max_size=4)),
        },
    )


@st.composite
def fitting(draw: st.DrawFn) -> tuple[bytes, bytes, str]:
    """JSON, what follows it, and the length that is told of it; of tensors that are what they say."""
    texts = draw(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=MOST))
    names = draw(st.sampled_from([["text"], ["text", "text_pair"], ["text_pair", "text"]]))
    tensors, tail = [], b""
    for name in names:
        tensor = {"name": name, "datatype": "BYTES", "shape": [len(texts)]}
        if draw(st.booleans()):
            tensors.append(tensor | {"data": texts})
            continue
        data = b"".join(map(element, texts))
        tensors.append(tensor | {"parameters": {"binary_data_size": len(data)}})
        tail += data
    return draw(written(infer_body(st.just(tensors)))), tail, "exact"


INFER = written(maybe(infer_body(maybe(st.lists(maybe(TENSOR), max_size=2)))))
INFER_HEADS = INFER | damaged(INFER) | st.binary(max_size=64)
TAILS = st.binary(max_size=20) | st.lists(st.text(max_size=4).map(element), max_size=3).map(
    b"".join
)
LENGTHS = st.sampled_from(["exact"] * 4 + ["none", "short", "long", "9" * 30, "-1", "1_0", ""])
INFER_REQUESTS = st.tuples(INFER_HEADS, TAILS, LENGTHS) | fitting()
"""JSON, what follows it, and how long it is told to be; see `header_length`."""


def header_length(how: str, head: bytes) -> str | None:
    told = {"exact": len(head), "short": len(head) - 1, "long": len(head) + 50}
    return None if how == "none" else str(told.get(how, how))


@fuzz
@given(body=PREDICT_BODIES, pair=st.booleans())
def test_any_body_of_predict_is_read_or_refused(body: bytes, pair: bool) -> None:
    try:
        request = read_predict_request(body, pair=pair, max_texts=MOST, auto_truncate=False)
    except (InvalidRequest, BatchTooLarge):
        return
    assert request.texts or request.partial
    assert 1 <= request.size <= MOST
    assert all((text.pair is not None) == pair and text.text.strip() for text in request.texts)


@fuzz
@given(request=INFER_REQUESTS, pair=st.booleans())
def test_any_body_of_infer_is_read_or_refused(
    request: tuple[bytes, bytes, str], pair: bool
) -> None:
    head, tail, length = request
    try:
        read = read_infer_request(
            head + tail, header_length(length, head), pair=pair, max_texts=MOST, auto_truncate=False
        )
    except (InvalidRequest, BatchTooLarge):
        return
    assert 1 <= len(read.predict.texts) <= MOST
    assert all((text.pair is not None) == pair for text in read.predict.texts)


@pytest.fixture(scope="module", params=[False, True], ids=["texts", "pairs"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    directory: Path = tmp_path_factory.mktemp("fuzz") / "tiny"
    task = build_task(directory, pair=request.param, distance_threshold=0.3, lexical=True)
    app = create_app(
        StudentSettings(task_dir=task.directory, max_request_texts=MOST, access_log=False)
    )
    with TestClient(app) as client:
        yield client


def test_any_body_of_predict_is_answered_or_refused(served: TestClient) -> None:
    @fuzz
    @given(body=PREDICT_BODIES)
    def ask(body: bytes) -> None:
        answer = served.post("/predict", content=body)
        told = answer.json()
        if answer.status_code != 200:
            assert (answer.status_code, told["code"]) in {
                (422, "invalid_request"),
                (413, "batch_too_large"),
                (413, "text_too_long"),
            }
            assert told["error"]
            return
        asked = json.loads(body)
        if asked.get("explain"):
            assert told["release"]
            return
        raw = asked.get("raw_scores") or (asked.get("parameters") or {}).get("function_to_apply")
        single = isinstance(told[0], dict) and "score" in told[0]
        for row in [told] if single else told:
            check_scores(row, raw=raw in (True, "none"))

    ask()
    assert served.get("/readyz").status_code == 200


def check_scores(row: Any, *, raw: bool) -> None:
    """Labels of the task, best first, their scores finite; probabilities at most 1 in all."""
    if isinstance(row, dict):
        assert row["code"]
        return
    scores = [entry["score"] for entry in row]
    assert 1 <= len(row) <= len(LABELS)
    assert {entry["label"] for entry in row} <= set(LABELS)
    assert all(map(math.isfinite, scores))
    assert scores == sorted(scores, reverse=True)
    if not raw:
        assert min(scores) >= 0
        assert sum(scores) <= 1 + 1e-5


def test_any_body_of_infer_is_answered_or_refused(served: TestClient) -> None:
    @fuzz
    @given(request=INFER_REQUESTS)
    def ask(request: tuple[bytes, bytes, str]) -> None:
        head, tail, length = request
        told = header_length(length, head)
        headers = {} if told is None else {HEADER_LENGTH: told}
        answer = served.post(f"/v2/models/{TASK}/infer", content=head + tail, headers=headers)
        if answer.status_code != 200:
            assert answer.status_code in (400, 413)
            assert answer.json().keys() == {"error"}
            return
        size = int(answer.headers.get(HEADER_LENGTH, len(answer.content)))
        outputs = json.loads(answer.content[:size])["outputs"]
        binary = sum(output.get("parameters", {}).get("binary_data_size", 0) for output in outputs)
        assert size + binary == len(answer.content)
        for output in outputs:
            assert output["name"] in ("label", "score")
            if "data" in output:
                assert len(output["data"]) == math.prod(output["shape"])

    ask()
    assert served.get("/readyz").status_code == 200
