"""A cell whose stages have run: their parts, each opened once and closed together."""

import math
from collections.abc import Iterable
from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from offline.bench.answering import predictions
from offline.configs.run import RunConfig
from offline.report.summary import FinishedRun
from offline.stages.index import CANDIDATE
from offline.store.config import StoreConfig
from offline.store.publish import open_predictor
from offline.store.version_size import version_bytes
from offline.student.baselines import Baseline, load_baselines
from offline.student.items import TrainingItems, knowledge_items
from offline.student.mixing_fit import NO_STORE
from offline.tasks.prepared import PreparedTask
from offline.teacher.labeller import Labeller, load_labeller
from services.platform.errors import NotReady
from services.releases.manifest import BUNDLE, EDITED, LEXICAL, SOFT_LABELS
from services.store.knowledge_file import read_knowledge
from services.student.predictor import Predictor

if TYPE_CHECKING:
    from offline.bench.static_embeddings import StaticEmbeddings


class FinishedCell:
    """The finished stages of a cell.

    Attributes:
        config: of the run.
        seed: of the run.
    """

    def __init__(
        self, config: RunConfig, run: FinishedRun, *, static: Path | None, candidate_stage: str
    ) -> None:
        """Open nothing yet.

        Args:
            config: of the run.
            run: its stages.
            static: directory of the static embeddings, where a system needs them.
            candidate_stage: the stage whose `candidate/` is our release.
        """
        self.config = config
        self.seed = run.seed
        self._run = run
        self._static = static
        self._candidate = candidate_stage
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def path(self, stage: str, *parts: str) -> Path:
        """A file of a stage."""
        return self._run.path(stage, *parts)

    @property
    def stages(self) -> frozenset[str]:
        """Names of those that have run."""
        return frozenset(self._run.manifests)

    def contents(self, stages: Iterable[str]) -> dict[str, str]:
        """Hash of the files of each of these stages."""
        return {stage: self._run.manifests[stage].content for stage in stages}

    @cached_property
    def task(self) -> PreparedTask:
        return PreparedTask.load(self.path("prepare"))

    @cached_property
    def labeller(self) -> Labeller:
        return load_labeller(self.path("labeller"))

    @cached_property
    def baselines(self) -> dict[str, Baseline]:
        return load_baselines(self.path("baselines"))

    @cached_property
    def items(self) -> TrainingItems:
        """Of the knowledge file, with the labeller's embeddings."""
        directory = self.path("knowledge")
        knowledge = read_knowledge(directory / "knowledge.parquet")
        return knowledge_items(knowledge, self.labeller, directory)

    @property
    def candidate(self) -> Path:
        """Our release's files."""
        return self.path(self._candidate, CANDIDATE)

    @property
    def bundle(self) -> Path:
        return self.candidate / BUNDLE

    @cached_property
    def predictor(self) -> Predictor:
        return self._open.enter_context(open_predictor(self.candidate))

    def predictor_with(
        self,
        *,
        k: int | None = None,
        gate: bool = True,
        lexical: bool = True,
        neighbours: bool = True,
    ) -> Predictor:
        """The same release, asked in another way.

        Args:
            k: neighbours; None for as many as it asks for.
            gate: False for one share of the store for all texts: its mean over validation. A gate that reads
                nothing is the same for all texts already.
            lexical: False to leave its lexical index out.
            neighbours: False to give the neighbours no share.
        """
        mixing = self.predictor.bundle.mixing
        if k is not None:
            mixing = replace(mixing, k=k)
        if not lexical:
            mixing = replace(mixing, lexical_share=0.0)
        if not neighbours:
            mixing = replace(
                mixing, gate_weights=(0.0,) * len(mixing.gate_weights), gate_bias=NO_STORE
            )
        if not gate and any(mixing.gate_weights):
            mixing = replace(
                mixing,
                gate_weights=(0.0,) * len(mixing.gate_weights),
                gate_bias=self._mean_gate_bias(),
            )
        predictor = copy(self.predictor)
        predictor.bundle = predictor.bundle.model_copy(update={"mixing": mixing})
        return predictor

    def _mean_gate_bias(self) -> float:
        rows = self.task.examples("validation")
        found = predictions(self.predictor, rows.texts, rows.pairs)
        share = float(np.concatenate([part.weight for part in found]).mean())
        share = min(max(share, 1e-6), 1 - 1e-6)
        return math.log(share / (1 - share))

    @cached_property
    def store_bytes(self) -> int:
        """Of the store version as the store keeps it, of the soft labels and of the lexical index."""
        files = (self.candidate / name for name in (SOFT_LABELS, LEXICAL, EDITED))
        beside = sum(file.stat().st_size for file in files if file.exists())
        return version_bytes(self.candidate, StoreConfig()) + beside

    @cached_property
    def static_embeddings(self) -> "StaticEmbeddings":
        """Raises NotReady where they were not made."""
        if self._static is None:
            raise NotReady("The static embeddings have not been made.")
        # The package that they need is only there for developers.
        from offline.bench.static_embeddings import StaticEmbeddings

        return StaticEmbeddings(self._static)
