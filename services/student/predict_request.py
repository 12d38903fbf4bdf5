"""The body of `POST /predict`, read and checked.

By hand: it costs a tenth of what a model of unions does, and the messages name the input at fault.
`services.student.schemas` says the same for the OpenAPI document.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from services.platform.errors import InvalidRequest
from services.student.inputs import NO_FAULTS, Faults, check_size, read_inputs
from services.student.predictor import TextInput
from services.student.truncation import Direction

MAX_EXPLAINED = 32
"""Texts that one request may have explained: each answer holds every label and neighbour, and the thread
that answers everybody else writes it."""

FIELDS = (
    "inputs",
    "raw_scores",
    "truncate",
    "truncation_direction",
    "parameters",
    "partial",
    "explain",
)
PARAMETERS = ("top_k", "function_to_apply")


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A checked request.

    Attributes:
        texts: those that can be classified.
        single: the request is one input, not a batch.
        nested: the answer to one input is a batch of one, as the inference API has it.
        raw_scores: answer logarithms of the probabilities.
        truncate: cut texts that are too long; else they are errors.
        direction: the side on which they are cut.
        explain: answer what the answer was made of.
        show_texts: the sender may see the texts of knowledge items.
        top_k: labels of each answer; None for all.
        partial: an input that cannot be classified is answered with its error, the others as ever.
        faults: the errors of inputs that are not among `texts`, by their position in the request.
        tensors: the sender writes the answer itself, from the arrays.
    """

    texts: list[TextInput]
    single: bool = False
    nested: bool = False
    raw_scores: bool = False
    truncate: bool = False
    direction: Direction = "right"
    explain: bool = False
    show_texts: bool = True
    top_k: int | None = None
    partial: bool = False
    faults: Faults = field(default_factory=lambda: NO_FAULTS)
    tensors: bool = False

    @property
    def size(self) -> int:
        """Inputs of the request."""
        return len(self.texts) + len(self.faults)

    @property
    def plain(self) -> bool:
        """Whether every label's probability is asked for."""
        return self.top_k is None and not self.raw_scores


def read_predict_request(
    body: bytes, *, pair: bool, max_texts: int, auto_truncate: bool, show_texts: bool = True
) -> PredictRequest:
    """The request in a body.

    Args:
        body: JSON.
        pair: whether the task is about pairs of texts.
        max_texts: inputs that a request may hold.
        auto_truncate: what `truncate: null` means.
        show_texts: whether the sender may see the texts of knowledge items.

    Raises:
        InvalidRequest: the body is not JSON, has an unknown field, or one of a wrong type; the
            message names the field or the input.
        BatchTooLarge: there are too many inputs.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The request's body is not JSON: {error}.") from None
    if type(content) is not dict:
        raise InvalidRequest(
            "The request's body is not a JSON object.", hint='Expected {"inputs": "a text"}.'
        )
    for name in content:
        if name not in FIELDS:
            raise _unknown("field", name, FIELDS)
    if "inputs" not in content:
        raise InvalidRequest("The field 'inputs' is missing.", hint="It holds what to classify.")
    partial = read_flag(content, "partial")
    texts, single, faults = read_inputs(content["inputs"], pair, max_texts, partial)
    explain = read_flag(content, "explain")
    if explain:
        check_size(len(texts), MAX_EXPLAINED, field="explain")
    raw_scores = read_flag(content, "raw_scores")
    parameters = content.get("parameters")
    top_k = None
    if parameters is not None:
        raw_scores, top_k = _parameters(parameters, raw_scores)
    return PredictRequest(
        texts=texts,
        single=single,
        nested=single and parameters is not None,
        raw_scores=raw_scores,
        truncate=read_truncate(content, auto_truncate),
        direction=read_direction(content),
        explain=explain,
        show_texts=show_texts,
        top_k=top_k,
        partial=partial,
        faults=faults,
    )


def read_flag(content: Mapping[str, Any], name: str) -> bool:
    """A field that is true or false, false by default. Raises InvalidRequest."""
    value = content.get(name, False)
    if type(value) is not bool:
        raise InvalidRequest(f"The field {name!r} is neither true nor false.")
    return value


def read_truncate(content: Mapping[str, Any], auto_truncate: bool) -> bool:
    """Whether to cut texts that are too long; null leaves it to the server. Raises InvalidRequest."""
    truncate = content.get("truncate")
    if truncate is None:
        return auto_truncate
    if type(truncate) is not bool:
        raise InvalidRequest("The field 'truncate' is neither true, false nor null.")
    return truncate


def read_direction(content: Mapping[str, Any]) -> Direction:
    """The side on which texts are cut, right by default. Raises InvalidRequest."""
    match content.get("truncation_direction", "Right"):
        case "Right" | "right":
            return "right"
        case "Left" | "left":
            return "left"
        case _:
            raise InvalidRequest("The field 'truncation_direction' is neither 'Left' nor 'Right'.")


def read_top_k(content: Mapping[str, Any]) -> int | None:
    """How many labels to answer, all by default. Raises InvalidRequest."""
    top_k = content.get("top_k")
    if top_k is None:
        return None
    if type(top_k) is not int or top_k < 1:
        raise InvalidRequest("The parameter 'top_k' is not a number of labels, from 1 on.")
    return top_k


def read_function(content: Mapping[str, Any], raw_scores: bool) -> bool:
    """Whether logarithms are asked for, by `function_to_apply` or `raw_scores`. Raises InvalidRequest."""
    match content.get("function_to_apply"):
        case None:
            return raw_scores
        case "softmax" if not raw_scores:
            return False
        case "none":
            return True
        case "softmax":
            raise InvalidRequest(
                "'raw_scores' is true and 'function_to_apply' is 'softmax', which exclude each other."
            )
        case "sigmoid":
            raise InvalidRequest(
                "The parameter 'function_to_apply' is 'sigmoid', but the labels of this task "
                "exclude one another: their probabilities sum to 1.",
                hint="Ask for 'softmax', or 'none' for logarithms.",
            )
        case _:
            raise InvalidRequest(
                "The parameter 'function_to_apply' is neither 'softmax' nor 'none'."
            )


def _parameters(parameters: Any, raw_scores: bool) -> tuple[bool, int | None]:
    if type(parameters) is not dict:
        raise InvalidRequest("The field 'parameters' is not an object.")
    for name in parameters:
        if name not in PARAMETERS:
            raise _unknown("parameter", name, PARAMETERS)
    return read_function(parameters, raw_scores), read_top_k(parameters)


def _unknown(kind: str, name: str, known: tuple[str, ...]) -> InvalidRequest:
    shown = repr(name if len(name) <= 40 else name[:40] + "…")
    return InvalidRequest(f"The {kind} {shown} is unknown.", hint=f"Known: {', '.join(known)}.")
