"""The body of `POST /predict`, read and checked.

By hand: it costs a tenth of what a model of unions does, and the messages name the input at fault.
`services.student.schemas` says the same for the OpenAPI document.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from services.platform.errors import BatchTooLarge, InvalidRequest
from services.student.encoder import Direction
from services.student.predictor import TextInput

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

NO_FAULTS: Mapping[int, InvalidRequest] = {}


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
    faults: Mapping[int, InvalidRequest] = field(default_factory=lambda: NO_FAULTS)
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
    texts, single, faults = _inputs(content["inputs"], pair, max_texts, partial)
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
        explain=read_flag(content, "explain"),
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


def _inputs(
    inputs: Any, pair: bool, max_texts: int, partial: bool
) -> tuple[list[TextInput], bool, Mapping[int, InvalidRequest]]:
    """The texts, whether they are one input, and what could not be read."""
    if type(inputs) is str:
        if pair:
            raise InvalidRequest(
                "inputs is one text, but this task is about pairs of texts.",
                hint='Send ["first", "second"], or [["first", "second"], …] for a batch.',
            )
        return [TextInput(read_text(inputs, "inputs"))], True, NO_FAULTS
    if type(inputs) is not list or not inputs:
        raise InvalidRequest(
            "inputs is neither a text nor a list with something in it.",
            hint=f"Expected {_expected(pair)}.",
        )
    if all(type(entry) is str for entry in inputs):
        return [_flat(inputs, pair)], True, NO_FAULTS
    check_size(len(inputs), max_texts)
    read = _collect if partial else _all
    texts, faults = read(inputs, lambda entry, where: _entry(entry, where, pair))
    return texts, False, faults


def check_size(inputs: int, most: int) -> None:
    """Raises BatchTooLarge where a request holds more inputs than it may."""
    if inputs > most:
        raise BatchTooLarge(
            f"The request holds {inputs} inputs, at most {most} are taken.",
            hint="Send them in several requests.",
        )


def _all(
    inputs: list[Any], read: Callable[[Any, str], TextInput]
) -> tuple[list[TextInput], Mapping[int, InvalidRequest]]:
    return [read(entry, f"inputs[{index}]") for index, entry in enumerate(inputs)], NO_FAULTS


def _collect(
    inputs: list[Any], read: Callable[[Any, str], TextInput]
) -> tuple[list[TextInput], Mapping[int, InvalidRequest]]:
    texts, faults = [], {}
    for index, entry in enumerate(inputs):
        try:
            texts.append(read(entry, f"inputs[{index}]"))
        except InvalidRequest as error:
            faults[index] = error
    return texts, faults


def _flat(inputs: list[str], pair: bool) -> TextInput:
    """A list of texts alone: a pair, or one text in a list, as TEI takes it."""
    if pair:
        if len(inputs) != 2:
            raise InvalidRequest(
                f"inputs holds {len(inputs)} texts, a pair has two.",
                hint='Send [["first", "second"], …] for a batch.',
            )
        return TextInput(read_text(inputs[0], "inputs[0]"), read_text(inputs[1], "inputs[1]"))
    if len(inputs) != 1:
        raise InvalidRequest(
            f"inputs is a list of {len(inputs)} texts, which elsewhere means a pair; this task is "
            "about single texts.",
            hint='Send [["a"], ["b"]] for a batch.',
        )
    return TextInput(read_text(inputs[0], "inputs[0]"))


def _entry(entry: Any, where: str, pair: bool) -> TextInput:
    if type(entry) is not list:
        raise InvalidRequest(
            f"{where} is not a list, as each input of a batch is.",
            hint=f"Expected {_expected(pair)}.",
        )
    if len(entry) != 1 + pair:
        raise InvalidRequest(
            f"{where} holds {len(entry)} texts, expected {1 + pair}.",
            hint=f"This task is about {'pairs of texts' if pair else 'single texts'}.",
        )
    if pair:
        return TextInput(read_text(entry[0], f"{where}[0]"), read_text(entry[1], f"{where}[1]"))
    return TextInput(read_text(entry[0], where))


def read_text(text: Any, where: str) -> str:
    """A text with something in it. Raises InvalidRequest, which names it by `where`."""
    if type(text) is not str:
        raise InvalidRequest(f"{where} is not a text.")
    if not text or text.isspace():
        raise InvalidRequest(f"{where} is empty.", hint="There is nothing to classify in it.")
    return text


def _unknown(kind: str, name: str, known: tuple[str, ...]) -> InvalidRequest:
    shown = repr(name if len(name) <= 40 else name[:40] + "…")
    return InvalidRequest(f"The {kind} {shown} is unknown.", hint=f"Known: {', '.join(known)}.")


def _expected(pair: bool) -> str:
    if pair:
        return '["first", "second"] or [["first", "second"], …]'
    return '"a text" or [["a text"], ["another"]]'
