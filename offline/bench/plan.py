"""What a cell comes to: its configuration, its chain of stages, and the recipe of every row."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from offline.bench import distilled_on_unlabelled, prompts, smaller_store
from offline.bench.cells import Cell, cell_task
from offline.bench.recipes import needed, recipe, system_hash
from offline.bench.static_config import StaticConfig
from offline.bench.systems import STATIC_STAGE, SYSTEMS, System, ours_in
from offline.bench.variants import BASE, Variant
from offline.configs.run import RunConfig, load_run_config
from offline.pipeline.chain import Chain, as_json
from offline.pipeline.code_hash import code_hash
from offline.pipeline.manifest import hash_json
from offline.pipeline.outside import model_hash, outside_hashes
from offline.pipeline.release_stages import STAGES, beside
from offline.pipeline.stage import Stage
from services.platform.errors import InvalidConfig

METRICS = "offline.report.metrics"
_CHOICES = "choices"
_UNLABELLED = Stage(
    distilled_on_unlabelled.NAME,
    distilled_on_unlabelled.__name__,
    ("prepare", "labeller", "knowledge"),
    "baselines",
)
_SMALLER = Stage(
    smaller_store.NAME, smaller_store.__name__, ("knowledge", "student"), smaller_store.NAME
)
_STATIC = Stage(STATIC_STAGE, "offline.bench.static_embeddings", (), STATIC_STAGE)


@dataclass(frozen=True)
class CellPlan:
    """One variant of a cell.

    Attributes:
        cell: task, regime, shots, seed.
        variant: what is changed.
        config: of the run.
        chain: all stages that its systems may need.
        static: the static embeddings' own chain of one stage.
        choices: whether its pairs are choices, which are compared.
    """

    cell: Cell
    variant: Variant
    config: RunConfig
    chain: Chain
    static: Chain
    choices: bool

    @cached_property
    def systems(self) -> tuple[System, ...]:
        """What is measured: all systems that exist in the regime, or ours in an ablation."""
        if self.variant != BASE:
            return (ours_in(self.variant),)
        return tuple(system for system in SYSTEMS if self.cell.regime in system.regimes)

    @property
    def candidate_stage(self) -> str:
        """The stage that lays out our release."""
        return "index" if self.variant.store_items is None else smaller_store.NAME

    def recipe(self, system: System) -> str:
        """Of the system's row; see `offline.bench.recipes`."""
        return recipe(self.chain, system.stages, self._measuring(system), self.cell.seed)

    def system_hash(self, system: System) -> str:
        """The same without task and seed."""
        return system_hash(self.chain, system.stages, self._measuring(system))

    @property
    def prompts_recipe(self) -> str:
        """Of the comparison of the generator's prompts."""
        return recipe(self.chain, [prompts.STAGE], "", self.cell.seed)

    def stages(self, system: System) -> list[str]:
        """Names of all stages that the system follows from."""
        return [stage.name for stage in needed(self.chain.stages, system.stages)]

    def compares(self, systems: Sequence[System]) -> bool:
        """Whether the prompts are compared with these systems: PPO is among what they follow from, unchanged."""
        return self.variant == BASE and any("ppo" in self.stages(system) for system in systems)

    def only(self, systems: Sequence[System], *, compare: bool) -> Chain:
        """The stages that these systems need, and the comparison of prompts."""
        targets = {stage for system in systems for stage in system.stages}
        if compare:
            targets.add(prompts.STAGE)
        return replace(self.chain, stages=needed(self.chain.stages, targets))

    def _measuring(self, system: System) -> str:
        parts: dict[str, Any] = {
            "revision": system.revision,
            "asked": [
                self.variant.k,
                self.variant.gate,
                self.variant.lexical,
                self.variant.neighbours,
            ],
            "code": {module: code_hash(module) for module in (*system.code, METRICS)},
        }
        if system.static:
            parts["static"] = {
                "code": code_hash(_STATIC.module),
                "config": as_json(self.static.sections[STATIC_STAGE]),
                "outside": dict(self.static.outside[STATIC_STAGE]),
            }
        return hash_json(parts)


def plan_cell(
    cell: Cell,
    data: Path | None,
    stages: Path,
    *,
    variant: Variant = BASE,
    quick: bool = False,
    overrides: Sequence[str] = (),
) -> CellPlan:
    """Put a cell's configuration and chain together; nothing is run, nothing written but pairs of choices.

    Args:
        cell: task, regime, shots, seed.
        data: the folder with a folder a task.
        stages: root of all finished stages of the benchmark.
        variant: what is changed.
        quick: the tiny settings.
        overrides: `section.key=value`, over the benchmark's configuration.

    Raises:
        InvalidConfig: an override is of the task, which the data say, or is unknown or wrong.
        InvalidData: see `task_section`.
    """
    for override in overrides:
        if override.partition("=")[0].split(".")[0].strip() in ("task", "seed"):
            raise InvalidConfig(
                f"The override {override!r} is of what the benchmark sets.",
                hint="Name tasks, shots and seeds by --tasks, --shots and --seeds.",
            )
    task = cell_task(cell, data, stages / _CHOICES)
    file = Path(str(resources.files("offline.bench"))) / (
        "quick.yaml" if quick else "accuracy.yaml"
    )
    config = load_run_config(
        str(file), [f"task={json.dumps(task.section)}", *overrides, *variant.overrides]
    )
    kept = tuple(stage for stage in STAGES if stage.name != "evaluate")
    sections: dict[str, Any] = {stage.section: getattr(config, stage.section) for stage in kept}
    extra = [_UNLABELLED] if cell.regime == "unlabelled" else []
    if variant.store_items is not None:
        extra.append(_SMALLER)
        sections[smaller_store.NAME] = smaller_store.SmallerStoreConfig(
            items=variant.store_items, store=config.store
        )
    every = (*kept, *extra)
    chain = Chain(
        stages=every,
        root=stages,
        sections=sections,
        outside=outside_hashes(config, every),
        beside=beside(config) | {distilled_on_unlabelled.NAME},
        processes=config.processes,
    )
    return CellPlan(cell, variant, config, chain, _static_chain(config, stages), task.choices)


def _static_chain(config: RunConfig, stages: Path) -> Chain:
    encoder = config.labeller.encoder.model
    return Chain(
        stages=(_STATIC,),
        root=stages,
        sections={STATIC_STAGE: StaticConfig(encoder=encoder)},
        outside={STATIC_STAGE: {"labeller.encoder.model": model_hash(encoder)}},
    )
