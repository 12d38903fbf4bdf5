"""The bodies of `/v2/models/{model}/infer`: read into what the predictor takes, written from what it gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from services.platform.errors import InvalidRequest
from services.student.answering import Answer
from services.student.answers import NUMPY, best_first
from services.student.inputs import check_size, read_text
from services.student.predict_request import (
    PredictRequest,
    read_direction,
    read_flag,
    read_function,
    read_top_k,
    read_truncate,
)
from services.student.predictor import TextInput
from services.student.tensors import Binary, parameters_of, read_strings, write_tensor

TEXT, TEXT_PAIR = "text", "text_pair"
LABEL, SCORE = "label", "score"


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A checked request.

    Attributes:
        predict: what the predictor is asked.
        id: that the answer repeats.
        outputs: the tensors that are asked for, and whether in binary.
    """

    predict: PredictRequest
    id: str | None
    outputs: tuple[tuple[str, bool], ...]


def read_infer_request(
    body: bytes, header_length: str | None, *, pair: bool, max_texts: int, auto_truncate: bool
) -> InferRequest:
    """The request in a body.

    Its parameters are `truncate`, `truncation_direction`, `raw_scores`, `top_k` and
    `function_to_apply`, as `/predict` has them, and `binary_data_output`. Others are left aside, as
    clients send some of their own.

    Args:
        body: JSON, and behind it the data of binary tensors.
        header_length: bytes of the JSON (`Inference-Header-Content-Length`); None for all.
        pair: whether the task is about pairs of texts.
        max_texts: inputs that a request may hold.
        auto_truncate: cut texts that are too long where the request does not say.

    Raises:
        InvalidRequest: the message names the tensor or parameter that cannot be used.
        BatchTooLarge: there are too many inputs.
    """
    content, binary = _parse(body, header_length)
    id_ = content.get("id")
    if id_ is not None and type(id_) is not str:
        raise InvalidRequest("The field 'id' is not a text.")
    parameters = parameters_of(content, "the request")
    return InferRequest(
        predict=PredictRequest(
            texts=_texts(content, binary, pair, max_texts),
            raw_scores=read_function(parameters, read_flag(parameters, "raw_scores")),
            truncate=read_truncate(parameters, auto_truncate),
            direction=read_direction(parameters),
            top_k=read_top_k(parameters),
            tensors=True,
        ),
        id=id_,
        outputs=_outputs(content, read_flag(parameters, "binary_data_output")),
    )


def write_infer_answer(
    model: str, request: InferRequest, answer: Answer
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON where binary tensors follow it."""
    assert answer.probabilities is not None
    asked = request.predict
    order, scores = best_first(answer.probabilities, raw=asked.raw_scores, top_k=asked.top_k)
    tensors, contents = [], []
    for name, binary in request.outputs:
        values = (
            scores
            if name == SCORE
            else [answer.labels[column] for column in order.ravel().tolist()]
        )
        tensor, content = write_tensor(name, values, order.shape, binary=binary)
        tensors.append(tensor)
        contents.append(content)
    written: dict[str, Any] = {"model_name": model, "model_version": answer.release}
    if request.id is not None:
        written["id"] = request.id
    head = orjson.dumps({**written, "outputs": tensors}, option=NUMPY)
    binary_part = any(binary for _, binary in request.outputs)
    return head + b"".join(contents), len(head) if binary_part else None


def _parse(body: bytes, header_length: str | None) -> tuple[dict[str, Any], Binary]:
    length = len(body)
    if header_length is not None:
        # Python reads no number of thousands of digits.
        plain = header_length.isascii() and header_length.isdigit() and len(header_length) < 20
        if not plain or int(header_length) > length:
            raise InvalidRequest(
                "Inference-Header-Content-Length is not a number of bytes within the body."
            )
        length = int(header_length)
    try:
        content = orjson.loads(body[:length])
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The request's body is not JSON: {error}.") from None
    if type(content) is not dict:
        raise InvalidRequest("The request's body is not a JSON object.")
    return content, Binary(body[length:])


def _texts(
    content: Mapping[str, Any], binary: Binary, pair: bool, max_texts: int
) -> list[TextInput]:
    tensors = content.get("inputs")
    if type(tensors) is not list or not all(type(tensor) is dict for tensor in tensors):
        raise InvalidRequest("The field 'inputs' is not a list of tensors.")
    expected = [TEXT, TEXT_PAIR] if pair else [TEXT]
    names = [tensor.get("name") for tensor in tensors]
    if len(names) != len(expected) or not all(name in names for name in expected):
        raise InvalidRequest(
            f"This model takes the input {' and the input '.join(map(repr, expected))}, each once, "
            "and no other."
        )
    # In the order of the request, which is that of the binary data.
    found = {
        tensor["name"]: read_strings(tensor, binary, f"the input {tensor['name']!r}")
        for tensor in tensors
    }
    if binary.left:
        raise InvalidRequest(f"{binary.left} bytes behind the request's JSON belong to no input.")
    sizes = {len(elements) for elements in found.values()}
    if sizes == {0} or len(sizes) > 1:
        raise InvalidRequest("The inputs are empty, or differ in their number of elements.")
    check_size(len(found[TEXT]), max_texts)
    texts = [read_text(text, f"{TEXT}[{n}]") for n, text in enumerate(found[TEXT])]
    if not pair:
        return [TextInput(text) for text in texts]
    seconds = [read_text(text, f"{TEXT_PAIR}[{n}]") for n, text in enumerate(found[TEXT_PAIR])]
    return [TextInput(text, second) for text, second in zip(texts, seconds, strict=True)]


def _outputs(content: Mapping[str, Any], binary: bool) -> tuple[tuple[str, bool], ...]:
    outputs = content.get("outputs")
    if not outputs and (outputs is None or type(outputs) is list):
        return ((LABEL, binary), (SCORE, binary))
    if type(outputs) is not list or not all(type(output) is dict for output in outputs):
        raise InvalidRequest("The field 'outputs' is not a list of objects.")
    wanted: dict[str, bool] = {}
    for output in outputs:
        name = output.get("name")
        if name not in (LABEL, SCORE) or name in wanted:
            raise InvalidRequest(
                f"This model gives the outputs {LABEL!r} and {SCORE!r}, each at most once."
            )
        parameters = parameters_of(output, f"the output {name!r}")
        if "classification" in parameters:
            raise InvalidRequest(
                "The parameter 'classification' is not served.",
                hint="The output 'label' holds labels, best first; 'top_k' says how many.",
            )
        own = parameters.get("binary_data", binary)
        if type(own) is not bool:
            raise InvalidRequest("The parameter 'binary_data' is neither true nor false.")
        wanted[name] = own
    return tuple(wanted.items())
