"""The body of `POST /predict`: as Text Embeddings Inference has it, with `explain` added.

Requests are read by hand: it costs a tenth of what a model of unions does, and the messages name the
input at fault. The pydantic classes say the same for the OpenAPI document.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from services.platform.errors import BatchTooLarge, InvalidRequest
from services.student.encoder import Direction
from services.student.predictor import TextInput

FIELDS = ("inputs", "raw_scores", "truncate", "truncation_direction", "explain")

Inputs = (
    Annotated[str, Field(min_length=1)]
    | Annotated[list[str], Field(min_length=1, max_length=2)]
    | Annotated[list[Annotated[list[str], Field(min_length=1, max_length=2)]], Field(min_length=1)]
)


class PredictBody(BaseModel):
    """What is to be classified.

    Attributes:
        inputs: a text; or a pair of texts, where the task is about pairs; or a batch, a list of
            such, each in a list of its own: `[["a"], ["b"]]`, `[["a", "b"], ["c", "d"]]`.
        raw_scores: answer the logarithm of the probability.
        truncate: cut texts that are too long; null leaves it to the server (`auto_truncate` in
            `/info`); false answers 413.
        truncation_direction: the side on which they are cut.
        explain: answer an object that says what the answer was made of.
    """

    model_config = ConfigDict(extra="forbid")

    inputs: Inputs
    raw_scores: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] = "Right"
    explain: bool = False


class Score(BaseModel):
    """A label and its probability (or the logarithm of it)."""

    label: str
    score: float


class Neighbour(BaseModel):
    """A knowledge item that the store found for a text.

    Attributes:
        id: of the item.
        similarity: cosine of its vector and the text's.
        weight: its share of what the store says; those of all neighbours sum to 1.
        labels: the teacher's soft label, by label.
        text, text_pair, label, origin: null when the store did not give them.
    """

    id: int
    similarity: float
    weight: float
    labels: dict[str, float]
    text: str | None
    text_pair: str | None
    label: str | None
    origin: str | None


class Explanation(BaseModel):
    """What the answer to one text was made of.

    Attributes:
        scores: the answer, best first.
        student: the student's own probabilities, by label.
        store: those of the neighbours alone; null when the store was of no help.
        weight: the store's share of the answer.
        neighbours: nearest first.
    """

    scores: list[Score]
    student: dict[str, float]
    store: dict[str, float] | None
    weight: float
    neighbours: list[Neighbour]


class ExplainedAnswer(BaseModel):
    """The answer to a request with `"explain": true`.

    Attributes:
        release: that answered.
        degraded: why the store was of no help; null when it was.
        seconds: taken by each step, for the whole batch that the request was computed in.
        predictions: one for each input.
    """

    release: str
    degraded: str | None
    seconds: dict[str, float]
    predictions: list[Explanation]


class ErrorBody(BaseModel):
    """Every error's body."""

    error: str
    error_type: str
    code: str


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """A checked request; `single` when the answer is not to be a batch."""

    texts: list[TextInput]
    single: bool
    raw_scores: bool
    truncate: bool
    direction: Direction
    explain: bool


def read_predict_request(
    body: bytes, *, pair: bool, max_texts: int, auto_truncate: bool
) -> PredictRequest:
    """The request in a body.

    Args:
        body: JSON.
        pair: whether the task is about pairs of texts.
        max_texts: inputs that a request may hold.
        auto_truncate: what `truncate: null` means.

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
            raise InvalidRequest(
                f"The field {_shown(name)} is unknown.", hint=f"Known: {', '.join(FIELDS)}."
            )
    if "inputs" not in content:
        raise InvalidRequest("The field 'inputs' is missing.", hint="It holds what to classify.")
    texts, single = _inputs(content["inputs"], pair, max_texts)
    truncate = content.get("truncate")
    if truncate is not None and type(truncate) is not bool:
        raise InvalidRequest("The field 'truncate' is neither true, false nor null.")
    return PredictRequest(
        texts=texts,
        single=single,
        raw_scores=_flag(content, "raw_scores"),
        truncate=auto_truncate if truncate is None else truncate,
        direction=_direction(content),
        explain=_flag(content, "explain"),
    )


def _inputs(inputs: Any, pair: bool, max_texts: int) -> tuple[list[TextInput], bool]:
    if type(inputs) is str:
        if pair:
            raise InvalidRequest(
                "inputs is one text, but this task is about pairs of texts.",
                hint='Send ["first", "second"], or [["first", "second"], …] for a batch.',
            )
        return [TextInput(_text(inputs, "inputs"))], True
    if type(inputs) is not list or not inputs:
        raise InvalidRequest(
            "inputs is neither a text nor a list with something in it.",
            hint=f"Expected {_expected(pair)}.",
        )
    if all(type(entry) is str for entry in inputs):
        return [_flat(inputs, pair)], True
    if len(inputs) > max_texts:
        raise BatchTooLarge(
            f"The request holds {len(inputs)} inputs, at most {max_texts} are taken.",
            hint="Send them in several requests.",
        )
    return [_entry(entry, f"inputs[{index}]", pair) for index, entry in enumerate(inputs)], False


def _flat(inputs: list[str], pair: bool) -> TextInput:
    """A list of texts alone: a pair, or one text in a list, as TEI takes it."""
    if pair:
        if len(inputs) != 2:
            raise InvalidRequest(
                f"inputs holds {len(inputs)} texts, a pair has two.",
                hint='Send [["first", "second"], …] for a batch.',
            )
        return TextInput(_text(inputs[0], "inputs[0]"), _text(inputs[1], "inputs[1]"))
    if len(inputs) != 1:
        raise InvalidRequest(
            f"inputs is a list of {len(inputs)} texts, which elsewhere means a pair; this task is "
            "about single texts.",
            hint='Send [["a"], ["b"]] for a batch.',
        )
    return TextInput(_text(inputs[0], "inputs[0]"))


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
        return TextInput(_text(entry[0], f"{where}[0]"), _text(entry[1], f"{where}[1]"))
    return TextInput(_text(entry[0], where))


def _text(text: Any, where: str) -> str:
    if type(text) is not str:
        raise InvalidRequest(f"{where} is not a text.")
    if not text or text.isspace():
        raise InvalidRequest(f"{where} is empty.", hint="There is nothing to classify in it.")
    return text


def _flag(content: dict[str, Any], name: str) -> bool:
    value = content.get(name, False)
    if type(value) is not bool:
        raise InvalidRequest(f"The field {name!r} is neither true nor false.")
    return value


def _direction(content: dict[str, Any]) -> Direction:
    match content.get("truncation_direction", "Right"):
        case "Right" | "right":
            return "right"
        case "Left" | "left":
            return "left"
        case _:
            raise InvalidRequest("The field 'truncation_direction' is neither 'Left' nor 'Right'.")


def _expected(pair: bool) -> str:
    if pair:
        return '["first", "second"] or [["first", "second"], …]'
    return '"a text" or [["a text"], ["another"]]'


def _shown(name: str) -> str:
    return repr(name if len(name) <= 40 else name[:40] + "…")
