"""Stage `ppo`: improve the tuned prompt by its samples' reward."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from offline.pipeline.stage import StageContext
from offline.tasks.prepared import PreparedTask
from offline.teacher.generator import load_generator
from offline.teacher.labeller import load_labeller
from offline.teacher.ppo import PPOConfig, improve
from offline.teacher.prompt_files import load_prompts, save_prompts
from offline.teacher.rewarding import rewarding
from offline.teacher.run_log import RunLog

log = structlog.get_logger(__name__)

SAMPLES_A_LABEL = 3
"""Of a round, at least: with fewer, steps of the default size are too large for what a round knows of a label, and
agreement hardly rises (docs/ppo.md)."""


def run(inputs: Mapping[str, Path], config: PPOConfig, context: StageContext) -> dict[str, Any]:
    """Write the improved prompts in PEFT's format, `log.jsonl` and TensorBoard's events (one row a round each).

    A run that was killed goes on after its last checkpoint.
    """
    task = PreparedTask.load(inputs["prepare"])
    warn_of_few_samples(config, len(task.labels))
    generator = load_generator(inputs["generator"])
    reward = rewarding(task, load_labeller(inputs["labeller"]), config.reward)
    tuned = load_prompts(inputs["soft_prompt"], task.labels).to(generator.model.device)
    with RunLog(context.directory, step="step") as run_log:
        improved = improve(
            tuned,
            generator,
            reward,
            config,
            seed=context.seed,
            report=context.report,
            log=run_log,
            checkpoints=context.partial,
        )
    save_prompts(
        improved.prompts,
        task.labels,
        generator.identity,
        context.directory,
        task_type=generator.model.task_type,
    )
    return {"best_step": improved.best_step}


def warn_of_few_samples(config: PPOConfig, labels: int) -> None:
    """Log a warning where a round has fewer than `SAMPLES_A_LABEL` samples of a label."""
    wanted = SAMPLES_A_LABEL * labels
    if config.steps and config.batch_size < wanted:
        log.warning(
            "few_samples_a_label",
            batch_size=config.batch_size,
            labels=labels,
            hint=f"Set ppo.batch_size to {wanted} or more, ppo.minibatch_size to half of it and ppo.steps to as many"
            " fewer; or take smaller steps (ppo.learning_rate, ppo.shared_learning_rate).",
        )
