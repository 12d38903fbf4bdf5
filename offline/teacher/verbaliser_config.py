"""How a language model is asked for labels: what the configuration says, and what was settled on the run's rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from offline.configs.section import Section
from offline.teacher.precision import Precision


class VerbaliserConfig(Section):
    """Which language model, and how it is asked.

    Attributes:
        model: hub name or directory of a causal or encoder-decoder language model.
        template: what the model reads, with `{text}`, for pairs `{pair}`, and `{labels}` for the list of the
            labels' words if need be; none for a default. The label's words follow after a space.
        words: a label's words, where they are not to be those that describe it.
        shots: labelled examples of each label before the text (Brown et al. 2020), from the training rows.
        length_normalised: the mean over the words' tokens instead of the sum.
        contextual: contextual calibration.
        max_tokens: longer texts are cut, each of a pair.
        batch_size: continuations (a text and a label each) in one pass; those of one text are never parted.
        device: a torch device, or `auto`; see `generator.device`.
        precision: of the weights; see `generator.precision`.
    """

    model: str
    template: str | None = None
    words: dict[str, str] = Field(default_factory=dict)
    shots: Annotated[int, Field(ge=0)] = 0
    length_normalised: bool = True
    contextual: bool = True
    max_tokens: Annotated[int, Field(ge=4)] = 128
    batch_size: Annotated[int, Field(ge=1)] = 64
    device: str = "cpu"
    precision: Precision = "auto"


@dataclass(frozen=True, slots=True)
class Asked:
    """All that a verbaliser's scores depend on beside the language model.

    Attributes:
        words: of each label.
        pair: whether texts are pairs.
        examples: (text, second text or None, position of its label) of each labelled example, in order.
        prior: (labels,) log-probability of each label for texts without content; zeros without contextual
            calibration.
    """

    words: tuple[str, ...]
    pair: bool
    examples: tuple[tuple[str, str | None, int], ...]
    prior: tuple[float, ...]

    @classmethod
    def stored(cls, found: Mapping[str, Any]) -> "Asked":
        """From what `dataclasses.asdict` gave, through JSON."""
        return cls(
            tuple(found["words"]),
            bool(found["pair"]),
            tuple((text, pair, label) for text, pair, label in found["examples"]),
            tuple(found["prior"]),
        )
