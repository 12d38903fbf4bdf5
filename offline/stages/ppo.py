"""Stage `ppo`: improve the tuned prompt by its samples' reward, and measure what that brought."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline.pipeline.stage import StageContext
from offline.tasks.prepared import PreparedTask
from offline.teacher.comparison import compare
from offline.teacher.generator import SHARED_TOKENS, load_generator
from offline.teacher.judge import load_judge
from offline.teacher.labeller import load_labeller
from offline.teacher.ppo import PPOConfig, improve
from offline.teacher.prompt_files import load_prompts, save_prompts
from offline.teacher.rewards import Reward
from offline.teacher.run_log import RunLog
from offline.teacher.soft_labels import joined
from offline.teacher.soft_prompt import name_prompt
from offline.teacher.text_memory import TrainingTexts


def run(inputs: Mapping[str, Path], config: PPOConfig, context: StageContext) -> dict[str, Any]:
    """Write the improved prompts in PEFT's format, `log.jsonl` and TensorBoard's events (one row a round each), and
    `comparison.json`.

    A run that was killed goes on after its last checkpoint.
    """
    task = PreparedTask.load(inputs["prepare"])
    generator = load_generator(inputs["generator"])
    labeller = load_labeller(inputs["labeller"])
    names = [task.label_texts[label] for label in task.labels]
    examples = task.examples("train")
    texts = joined(examples.texts, examples.pairs)
    rest = task.examples("unlabelled")
    unlabelled = joined(rest.texts, rest.pairs)
    training = TrainingTexts.of(
        texts,
        task.label_ids(examples),
        labeller.embed(examples.texts, examples.pairs),
        names,
        sides=None if examples.pairs is None else (examples.texts, examples.pairs),
        unlabelled=unlabelled,
    )
    reward = Reward(config.reward, labeller, names, training)
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
    own = tuned.shape[1] - SHARED_TOKENS
    compared = compare(
        {
            "name_prefix": name_prompt(generator, names, SHARED_TOKENS, own).fixed(),
            "tuned_prompt": tuned,
            "ppo": improved.prompts,
        },
        generator,
        reward,
        load_judge(inputs["labeller"]),
        task.labels,
        texts,
        unlabelled,
        samples=config.comparison_samples,
        sampling=config.sampling,
        seed=context.seed,
    )
    (context.directory / "comparison.json").write_text(json.dumps(compared, indent=1))
    figures = (
        "reward", "label_agreement", "label_agreement_judge", "self_bleu", "copies",
        "copies_unlabelled",
    )  # fmt: skip
    return {
        "best_step": improved.best_step,
        **{
            f"{figure}_{when}": compared[name][figure]
            for figure in figures
            for when, name in (("before", "tuned_prompt"), ("after", "ppo"))
        },
    }
