"""The configuration of the student: its sizes, its training, its mixing."""

from typing import Annotated, Literal

from pydantic import Field

from offline.configs.section import Section
from offline.student.mixing_fit import MixingConfig
from offline.student.model import ShapeConfig
from offline.student.retrieval_loss import RetrievalConfig
from offline.student.training import TrainingConfig


class StudentConfig(Section):
    """The student.

    Attributes:
        max_share: limit of its parameters, token embeddings included, as a share of the labeller's.
        max_parameters: the same limit as a number; the lower one holds.
        shape: its sizes.
        training: how it is trained.
        retrieval: how it learns to retrieve.
        mixing: how the mixing is fitted.
        precision: of the exported network's dense layers: `fp32`, or `int8`, which is faster and as accurate to a few
            tenths of a point; see docs/results.md.
    """

    max_share: Annotated[float, Field(gt=0)] = 0.02
    max_parameters: Annotated[int, Field(ge=1)] | None = None
    shape: ShapeConfig = ShapeConfig()
    training: TrainingConfig = TrainingConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    mixing: MixingConfig = MixingConfig()
    precision: Literal["fp32", "int8"] = "fp32"

    def parameter_limit(self, of_labeller: int) -> int:
        """Most parameters that the student may have."""
        share = int(self.max_share * of_labeller)
        return share if self.max_parameters is None else min(share, self.max_parameters)
