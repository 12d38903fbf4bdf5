"""Stage `ppo`: improve the tuned prompt by its samples' reward."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline.pipeline.stage import StageContext
from offline.tasks.prepared import PreparedTask
from offline.teacher.generator import load_generator
from offline.teacher.labeller import load_labeller
from offline.teacher.ppo import PPOConfig, improve
from offline.teacher.prompt_files import load_prompts, save_prompts
from offline.teacher.rewarding import rewarding
from offline.teacher.run_log import RunLog


def run(inputs: Mapping[str, Path], config: PPOConfig, context: StageContext) -> dict[str, Any]:
    """Write the improved prompts in PEFT's format, `log.jsonl` and TensorBoard's events (one row a round each).

    A run that was killed goes on after its last checkpoint.
    """
    task = PreparedTask.load(inputs["prepare"])
    generator = load_generator(inputs["generator"])
    reward = rewarding(task, load_labeller(inputs["labeller"]), config.reward)
    tuned = load_prompts(inputs["soft_prompt"], task.labels).to(generator.model.device)
    with RunLog(context.directory, step="step") as log:
        improved = improve(
            tuned,
            generator,
            reward,
            config,
            seed=context.seed,
            report=context.report,
            log=log,
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
