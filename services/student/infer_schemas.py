"""The bodies of the open inference protocol v2, for the OpenAPI document."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field


class ServerMetadata(BaseModel):
    """What the server is, and which extensions of the protocol it has."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """A tensor that a model takes or gives; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model: the task that is served; its version is the release."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(BaseModel):
    name: str
    ready: bool


class TextTensor(BaseModel):
    """`text`, and `text_pair` where the task is about pairs.

    Attributes:
        shape: [n] or [n, 1].
        data: n texts.
    """

    name: Literal["text", "text_pair"]
    datatype: Literal["BYTES"]
    shape: Annotated[list[int], Field(min_length=1, max_length=2)]
    data: list[str]
    parameters: dict[str, Any] = {}


class WantedOutput(BaseModel):
    name: Literal["label", "score"]
    parameters: dict[str, Any] = {}


class InferBody(BaseModel):
    """Texts to classify, as tensors.

    Attributes:
        id: repeated in the answer.
        parameters: `truncate`, `truncation_direction`, `raw_scores`, `top_k` and
            `function_to_apply`, as `/predict` has them; `binary_data_output`.
        inputs: the texts.
        outputs: those that are wanted; both by default.
    """

    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[TextTensor]
    outputs: list[WantedOutput] | None = None


class OutputTensor(BaseModel):
    """`label` or `score`: n × labels, best first."""

    name: Literal["label", "score"]
    datatype: Literal["BYTES", "FP32"]
    shape: list[int]
    data: list[str] | list[float]


class InferAnswer(BaseModel):
    """Labels and their scores, row by row."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class ProtocolError(BaseModel):
    """Every error's body."""

    error: str
