"""The bodies of `POST /predict` for the OpenAPI document: Text Embeddings Inference's, and what is added.

`services.student.predict_request` reads them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Inputs = (
    Annotated[str, Field(min_length=1)]
    | Annotated[list[str], Field(min_length=1, max_length=2)]
    | Annotated[list[Annotated[list[str], Field(min_length=1, max_length=2)]], Field(min_length=1)]
)


class Parameters(BaseModel):
    """As the Hugging Face inference API has them.

    Attributes:
        top_k: labels of each answer; all by default.
        function_to_apply: `softmax` answers probabilities, `none` their logarithms; `sigmoid` is
            refused, as the labels of a task exclude one another.
    """

    model_config = ConfigDict(extra="forbid")

    top_k: Annotated[int, Field(ge=1)] | None = None
    function_to_apply: Literal["softmax", "none"] | None = None


class PredictBody(BaseModel):
    """What is to be classified.

    Attributes:
        inputs: a text; or a pair of texts, where the task is about pairs; or a batch, a list of
            such, each in a list of its own: `[["a"], ["b"]]`, `[["a", "b"], ["c", "d"]]`.
        raw_scores: answer the logarithm of the probability.
        truncate: cut texts that are too long; null leaves it to the server (`auto_truncate` in
            `/info`); false answers 413.
        truncation_direction: the side on which they are cut.
        parameters: the inference API's; where they are given, the answer is its too: a list of
            lists, for one input as well.
        partial: an input of a batch that cannot be classified is answered with its error, in its
            place; otherwise it fails the whole request.
        explain: answer an object that says what the answer was made of.
    """

    model_config = ConfigDict(extra="forbid")

    inputs: Inputs
    raw_scores: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] = "Right"
    parameters: Parameters | None = None
    partial: bool = False
    explain: bool = False


class ErrorBody(BaseModel):
    """Every error's body."""

    error: str
    error_type: str
    code: str


class Score(BaseModel):
    """A label and its probability (or the logarithm of it)."""

    label: str
    score: float


class Neighbour(BaseModel):
    """A knowledge item that the store found for a text.

    Attributes:
        id: of the item.
        similarity: cosine of its vector and the text's.
        weight: its share by similarity; those of all neighbours sum to 1.
        labels: the teacher's soft label, by label.
        text, text_pair: null where the store did not give them, or the key may not see texts.
        label, origin: null where the store did not give them.
    """

    id: int
    similarity: float
    weight: float
    labels: dict[str, float]
    text: str | None
    text_pair: str | None
    label: str | None
    origin: str | None


class Word(BaseModel):
    """A word of the text, as the lexical index reads it.

    Attributes:
        word: in lower case; a mark is a word.
        second: whether it is of a pair's second text.
        weight: what it adds to the logit of the best label, less what it adds to the mean of all labels' logits.
    """

    word: str
    second: bool
    weight: float


class Explanation(BaseModel):
    """What the answer to one text was made of.

    Attributes:
        scores: the answer, best first.
        student: the student's own probabilities, by label; the lexical index's part is in them.
        store: those of the neighbours alone, their soft labels weighed by `weight` and by the answer's `label_weights`;
            null when the store was of no help.
        weight: the store's share of the answer to the labels that the student knows. The probability of a label that
            came with an edit is the neighbours' alone, blended with what the words say.
        corrections: by how much neighbours that came after the student's training moved the probability of each label
            that it knows; null when the store was of no help, or where no knowledge item did.
        added_by_words: how probable each label that the student does not know is by the words of the text; null when
            the store was of no help, or where there are none of theirs.
        distance: one minus the mean similarity of the neighbours; null when the store was of no help.
        out_of_distribution: whether that is farther than 95 of 100 texts of the task are, so that the answer may
            mean nothing; null when the store was of no help, or the release does not know how far they are.
        words: what each word says for the best label, by the lexical index, or by that of the labels that the student
            does not know; null for a release without such an index.
        neighbours: nearest first.
    """

    scores: list[Score]
    student: dict[str, float]
    store: dict[str, float] | None
    weight: float
    corrections: dict[str, float] | None
    added_by_words: dict[str, float] | None
    distance: float | None
    out_of_distribution: bool | None
    words: list[Word] | None
    neighbours: list[Neighbour]


class ExplainedAnswer(BaseModel):
    """The answer to a request with `"explain": true`.

    Attributes:
        release: that answered.
        degraded: why the store was of no help; null when it was.
        seconds: taken by each step, for the whole batch that the request was computed in.
        lexical_share: of the lexical index in the student's scores, and of the words in the probability of a label that
            the student does not know; 0 for a student without an index.
        label_weights: what the neighbours' soft labels are multiplied by, by label: more than 1 for labels that came
            with edits and have few items, which those of many would drown otherwise; null where they count as they are.
        predictions: one for each input, or its error with `"partial": true`.
    """

    release: str
    degraded: str | None
    seconds: dict[str, float]
    lexical_share: float
    label_weights: dict[str, float] | None
    predictions: list[Explanation | ErrorBody]


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """JSON schema of a body, with what it refers to in place: an OpenAPI document knows no `$defs`."""
    schema = model.model_json_schema()
    definitions: dict[str, Any] = schema.pop("$defs", {})

    def inline(part: Any) -> Any:
        if isinstance(part, list):
            return [inline(entry) for entry in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return inline(definitions[part["$ref"].rsplit("/", 1)[1]])
        return {name: inline(value) for name, value in part.items()}

    whole: dict[str, Any] = inline(schema)
    return whole
