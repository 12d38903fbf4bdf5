"""Proximal policy optimisation of a soft prompt: the model stays frozen, its prompt learns from rewards."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from offline.teacher.generator import Generator
from offline.teacher.ppo_checkpoint import Checkpoint, Checkpoints, run_fingerprint
from offline.teacher.ppo_config import PPOConfig
from offline.teacher.ppo_trainer import Trainer
from offline.teacher.rewards import Reward
from offline.teacher.run_log import Log

__all__ = ["Improved", "PPOConfig", "Trainer", "improve"]

Report = Callable[[int, int, Mapping[str, float]], None]
_SHOWN = ("reward", "label_agreement", "kl", "distinct_2")


@dataclass(slots=True)
class Improved:
    """What PPO left, or has so far.

    Attributes:
        prompts: (labels, t, d) the best prompt of all evaluations.
        rows: one row a round: all figures that a practitioner looks at.
        best_step: the round after which that prompt was evaluated; 0 for the tuned prompt.
        best_reward: its mean reward then.
    """

    prompts: Tensor
    rows: list[dict[str, float]]
    best_step: int
    best_reward: float


def improve(
    prompts: Tensor,
    generator: Generator,
    reward: Reward,
    config: PPOConfig,
    *,
    seed: int,
    report: Report,
    log: Log | None = None,
    checkpoints: Path | None = None,
) -> Improved:
    """Raise the reward of what is written behind the prompts; `docs/ppo.md` has the formulas.

    Args:
        prompts: (labels, t, d) tuned prompt embeddings: where it starts, and what the KL penalty
            holds it to.
        generator: the frozen model.
        reward: of samples. Terms must depend on their batch alone, or a resumed run differs.
        seed: of everything that is drawn.
        report: called after each round.
        log: called with each row, those of rounds that were run before included.
        checkpoints: a directory for the run's state. If it holds one of a run with the same
            prompts, configuration and seed, that run goes on and ends as if it had not stopped.
    """
    trainer = Trainer(prompts, generator, reward, config, seed)
    kept = None
    if checkpoints is not None:
        run = run_fingerprint(prompts, generator.identity, config, seed)
        kept = Checkpoints(checkpoints, run)
    found = kept.load() if kept else None
    course = _begun(trainer) if found is None else _restored(trainer, found)
    for row in course.rows:
        if log:
            log(row)
    for step in range(len(course.rows), config.steps + 1):
        row = {"step": float(step), **trainer.step(step)}
        if step % config.evaluate_every == 0 or step == config.steps:
            row |= trainer.evaluate()
            if row["held_out_reward"] > course.best_reward:
                course.best_reward, course.best_step = row["held_out_reward"], step
                course.prompts = trainer.prompt.fixed()
        course.rows.append(row)
        if log:
            log(row)
        if kept and (step % config.checkpoint_every == 0 or step == config.steps):
            kept.save(step, _state(trainer, course))
        report(step, config.steps, {name: row[name] for name in _SHOWN})
    return course


def _begun(trainer: Trainer) -> Improved:
    trainer.begin()
    held_out = trainer.evaluate()
    first = {"step": 0.0, **held_out}
    return Improved(trainer.prompt.fixed(), [first], 0, held_out["held_out_reward"])


def _state(trainer: Trainer, course: Improved) -> Checkpoint:
    state = trainer.checkpoint()
    state.tensors["best"] = course.prompts
    state.values["rows"] = course.rows
    state.values["best_step"], state.values["best_reward"] = course.best_step, course.best_reward
    return state


def _restored(trainer: Trainer, state: Checkpoint) -> Improved:
    trainer.restore(state)
    return Improved(
        prompts=state.tensors["best"].to(trainer.prompt.own.device),
        rows=state.values["rows"],
        best_step=state.values["best_step"],
        best_reward=state.values["best_reward"],
    )
