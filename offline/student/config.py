"""The configuration of the student: its sizes, its training, its mixing."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from offline.configs.section import Section
from offline.student.mixing_fit import MixingConfig
from offline.student.model import ShapeConfig
from offline.student.retrieval_loss import RetrievalConfig
from offline.student.starting_encoder import StudentEncoderConfig
from offline.student.training import TrainingConfig

_OF_ANY_STUDENT = ("query", "max_tokens")


class StudentConfig(Section):
    """The student.

    Attributes:
        max_share: limit of its parameters, token embeddings included, as a share of the labeller's.
        max_parameters: the same limit as a number; the lower one holds.
        encoder: the encoder that it starts from; none for a student from scratch.
        shape: its sizes; beside an encoder, which has its own, `query` and `max_tokens` alone.
        training: how it is trained.
        retrieval: how it learns to retrieve.
        mixing: how the mixing is fitted.
        precision: of the exported network's dense layers: `fp32`, or `int8`, which is faster and as accurate to a few
            tenths of a point; see docs/results.md.
    """

    max_share: Annotated[float, Field(gt=0)] = 0.02
    max_parameters: Annotated[int, Field(ge=1)] | None = None
    encoder: StudentEncoderConfig | None = None
    shape: ShapeConfig = ShapeConfig()
    training: TrainingConfig = TrainingConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    mixing: MixingConfig = MixingConfig()
    precision: Literal["fp32", "int8"] = "fp32"

    @model_validator(mode="after")
    def _one_origin_of_sizes(self) -> Self:
        if self.encoder is None:
            return self
        # By value: a printed configuration sets every key, most of them to what holds anyway.
        usual = ShapeConfig()
        changed = [
            f"shape.{name}"
            for name in ShapeConfig.model_fields
            if name not in _OF_ANY_STUDENT and getattr(self.shape, name) != getattr(usual, name)
        ]
        if changed:
            raise ValueError(
                f"{', '.join(changed)} cannot be set beside encoder: these sizes are the encoder's"
            )
        return self

    def parameter_limit(self, of_labeller: int) -> int:
        """Most parameters that the student may have."""
        share = int(self.max_share * of_labeller)
        return share if self.max_parameters is None else min(share, self.max_parameters)

    def raised(self, needed: int, of_labeller: int) -> str:
        """What to raise, and to what, for a student of `needed` parameters."""
        raises = []
        if int(self.max_share * of_labeller) < needed:
            share = math.ceil(1000 * needed / of_labeller) / 1000
            raises.append(f"student.max_share to {share}")
        if self.max_parameters is not None and self.max_parameters < needed:
            raises.append(f"student.max_parameters to {needed}")
        return f"Raise {' and '.join(raises)}"
