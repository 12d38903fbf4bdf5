"""The body of /predict is read as Text Embeddings Inference reads it, and faults are named."""

import re

import orjson
import pytest

from services.platform.errors import BatchTooLarge, InvalidRequest
from services.student.predict_request import (
    FIELDS,
    MAX_EXPLAINED,
    PARAMETERS,
    PredictRequest,
    read_predict_request,
)
from services.student.predictor import TextInput
from services.student.schemas import Parameters, PredictBody


def read(content: object, *, pair: bool = False, auto_truncate: bool = False) -> PredictRequest:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return read_predict_request(body, pair=pair, max_texts=4, auto_truncate=auto_truncate)


def test_fewer_texts_are_explained_than_answered() -> None:
    most = [["a"]] * MAX_EXPLAINED

    def ask(inputs: list[list[str]], explain: bool) -> PredictRequest:
        body = orjson.dumps({"inputs": inputs, "explain": explain})
        return read_predict_request(body, pair=False, max_texts=256, auto_truncate=False)

    assert len(ask(most, explain=True).texts) == MAX_EXPLAINED
    assert len(ask([*most, ["b"]], explain=False).texts) == MAX_EXPLAINED + 1
    with pytest.raises(BatchTooLarge, match="holds 33 inputs, at most 32 are taken with 'explain'"):
        ask([*most, ["b"]], explain=True)


@pytest.mark.parametrize(
    ("inputs", "pair", "texts", "single"),
    [
        ("a", False, [TextInput("a")], True),
        (["a"], False, [TextInput("a")], True),
        ([["a"]], False, [TextInput("a")], False),
        ([["a"], ["b"]], False, [TextInput("a"), TextInput("b")], False),
        (["a", "b"], True, [TextInput("a", "b")], True),
        ([["a", "b"]], True, [TextInput("a", "b")], False),
        ([["a", "b"], ["c", "d"]], True, [TextInput("a", "b"), TextInput("c", "d")], False),
    ],
)
def test_inputs_are_a_text_a_pair_or_a_batch(
    inputs: object, pair: bool, texts: list[TextInput], single: bool
) -> None:
    request = read({"inputs": inputs}, pair=pair)
    assert (request.texts, request.single) == (texts, single)


@pytest.mark.parametrize(
    ("inputs", "pair", "told"),
    [
        (["a", "b"], False, '[["a"], ["b"]]'),
        ("a", True, "pairs of texts"),
        (["a"], True, "a pair has two"),
        (["a", "b", "c"], True, "a pair has two"),
        ([["a"], ["b", "c"]], False, "inputs[1] holds 2 texts"),
        ([["a", "b"], ["c"]], True, "inputs[1] holds 1 texts"),
        ([["a"], "b"], False, "inputs[1] is not a list"),
        (["a", ["b"]], False, "inputs[0] is not a list"),
        ([["a"], [1]], False, "inputs[1] is not a text"),
        ([["a"], [""]], False, "inputs[1] is empty"),
        ([["a", "b"], ["c", " \n"]], True, "inputs[1][1] is empty"),
        ("", False, "inputs is empty"),
        (" \t", False, "inputs is empty"),
        ([], False, "neither a text nor a list with something in it"),
        (None, False, "neither a text nor a list with something in it"),
        (3, False, "neither a text nor a list with something in it"),
        ([[]], False, "inputs[0] holds 0 texts"),
        ({"a": 1}, False, "neither a text nor a list with something in it"),
    ],
)
def test_inputs_that_cannot_be_meant_are_refused_by_their_place(
    inputs: object, pair: bool, told: str
) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(told)):
        read({"inputs": inputs}, pair=pair)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"inputs": "\xff"}', "not JSON"),
        (b'{"inputs": "\\ud800"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'"text"', "not a JSON object"),
        (b"{}", "'inputs' is missing"),
        ({"inputs": "a", "input": "b"}, "'input' is unknown"),
        ({"inputs": "a", "x" * 1000: 1}, "is unknown"),
        ({"inputs": "a", "raw_scores": 1}, "'raw_scores'"),
        ({"inputs": "a", "explain": None}, "'explain'"),
        ({"inputs": "a", "truncate": "yes"}, "'truncate'"),
        ({"inputs": "a", "truncation_direction": "up"}, "'truncation_direction'"),
        ({"inputs": "a", "truncation_direction": ["Left"]}, "'truncation_direction'"),
    ],
)
def test_a_body_that_cannot_be_meant_is_refused_by_its_field(body: object, told: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(told)) as caught:
        read(body)
    assert len(str(caught.value)) < 300


def test_too_many_inputs_are_a_batch_too_large() -> None:
    assert len(read({"inputs": [["a"]] * 4}).texts) == 4
    with pytest.raises(BatchTooLarge, match="at most 4"):
        read({"inputs": [["a"]] * 5})


def test_fields_have_the_defaults_of_text_embeddings_inference() -> None:
    request = read({"inputs": "a"})
    assert (request.raw_scores, request.truncate, request.direction) == (False, False, "right")
    assert read({"inputs": "a"}, auto_truncate=True).truncate
    assert read({"inputs": "a", "truncate": None}, auto_truncate=True).truncate
    assert not read({"inputs": "a", "truncate": False}, auto_truncate=True).truncate
    for name in ("Left", "left"):
        assert read({"inputs": "a", "truncation_direction": name}).direction == "left"


def test_the_documented_body_has_the_fields_that_are_read() -> None:
    assert tuple(PredictBody.model_fields) == FIELDS
    assert tuple(Parameters.model_fields) == PARAMETERS
