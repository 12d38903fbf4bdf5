"""The stages that make a release, in order, and what each reads."""

from offline.configs.run import RunConfig
from offline.pipeline.engine_kind import EngineKind
from offline.pipeline.stage import Stage
from offline.teacher.pretrained import PACKAGED


def _stage(name: str, *inputs: str, section: str | None = None) -> Stage:
    return Stage(name, f"offline.stages.{name}", inputs, section or name)


STAGES = (
    _stage("prepare", section="task"),
    _stage("labeller", "prepare"),
    _stage("generator", "prepare"),
    _stage("soft_prompt", "prepare", "generator"),
    _stage("ppo", "prepare", "labeller", "generator", "soft_prompt"),
    _stage("generate", "prepare", "generator", "ppo"),
    _stage("knowledge", "prepare", "labeller", "generate"),
    _stage("comparison", "prepare", "labeller", "generator", "soft_prompt", "ppo", section="ppo"),
    _stage("student", "prepare", "labeller", "knowledge"),
    _stage("baselines", "prepare", "labeller", "knowledge"),
    _stage("index", "knowledge", "student", section="store"),
    _stage("evaluate", "prepare", "labeller", "baselines", "index"),
)

_ALWAYS = frozenset({"student", "baselines", "index"})
_BESIDE_THE_COMPARISON = frozenset({"comparison", "knowledge"})


def beside(config: RunConfig) -> frozenset[str]:
    """Stages that may run at the same time: one student trains no faster on a second core.

    The comparison of prompts holds generator and labeller beside what another stage holds, so that it waits
    for its turn unless both are those that come with RetriKT, and so do shards that a cluster works on.
    """
    labeller = config.labeller
    small = (
        config.generator.model is None
        and labeller.kind == "encoder"
        and labeller.encoder.model == PACKAGED
    )
    here = config.engine.kind is EngineKind.PROCESS
    return _ALWAYS | _BESIDE_THE_COMPARISON if small and here else _ALWAYS
