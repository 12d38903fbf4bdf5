"""What a row follows from, told before anything has run: code, configuration, seed, data and models.

A stage's key names its inputs by content, so it is known only once they are there. A recipe names them
by their own recipes instead: stages are deterministic, so equal recipes give equal content, and a
row that was committed long ago can be compared with what would be run today.
"""

from collections.abc import Iterable, Mapping, Sequence

from offline.pipeline.chain import Chain, as_json
from offline.pipeline.code_hash import code_hash
from offline.pipeline.manifest import hash_json
from offline.pipeline.stage import Stage

_OF_THE_TASK = "prepare"
"""The stage whose section and data tell one task from another."""


def needed(stages: Sequence[Stage], targets: Iterable[str]) -> list[Stage]:
    """The stages that the targets need, themselves included, in order."""
    wanted = set(targets)
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted.update(stage.inputs)
    return [stage for stage in stages if stage.name in wanted]


def recipe(chain: Chain, targets: Sequence[str], measuring: str, seed: int) -> str:
    """Hash of all that a row follows from.

    Args:
        chain: stages, sections and hashes of what lies outside.
        targets: the stages that the system is measured from.
        measuring: hash of the code that measures it.
        seed: of the run.
    """
    recipes: dict[str, str] = {}
    for stage in needed(chain.stages, targets):
        recipes[stage.name] = hash_json(
            {
                **_of_stage(chain, stage),
                "seed": seed,
                "inputs": {name: recipes[name] for name in stage.inputs},
            }
        )
    return hash_json([{name: recipes[name] for name in targets}, measuring])[:16]


def system_hash(chain: Chain, targets: Sequence[str], measuring: str) -> str:
    """The same without task, data and seed: systems that differ in it do not belong in one table."""
    stages: dict[str, Mapping[str, object]] = {}
    for stage in needed(chain.stages, targets):
        found = _of_stage(chain, stage)
        stages[stage.name] = {"code": found["code"]} if stage.name == _OF_THE_TASK else found
    return hash_json([stages, measuring])[:16]


def _of_stage(chain: Chain, stage: Stage) -> dict[str, object]:
    return {
        "stage": stage.name,
        "code": code_hash(stage.module),
        "config": as_json(chain.sections[stage.section]),
        "outside": dict(chain.outside.get(stage.name, {})),
    }
