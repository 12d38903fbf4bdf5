"""Stage `comparison`: what PPO brought, on fresh samples of the label's name, the tuned prompt and PPO's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline.pipeline.stage import StageContext
from offline.tasks.prepared import PreparedTask
from offline.teacher.comparison import COMPARISON, compare
from offline.teacher.generator import SHARED_TOKENS, load_generator
from offline.teacher.judge import load_judge
from offline.teacher.labeller import load_labeller
from offline.teacher.ppo import PPOConfig
from offline.teacher.prompt_files import load_prompts
from offline.teacher.rewarding import rewarding
from offline.teacher.soft_labels import joined
from offline.teacher.soft_prompt import name_prompt


def run(inputs: Mapping[str, Path], config: PPOConfig, context: StageContext) -> dict[str, Any]:
    """Write `comparison.json`: figures of each prompt, which no other stage reads."""
    task = PreparedTask.load(inputs["prepare"])
    generator = load_generator(inputs["generator"])
    names = [task.label_texts[label] for label in task.labels]
    examples, rest = task.examples("train"), task.examples("unlabelled")
    tuned, improved = (
        load_prompts(inputs[stage], task.labels).to(generator.model.device)
        for stage in ("soft_prompt", "ppo")
    )
    compared = compare(
        {
            "name_prefix": name_prompt(
                generator, names, SHARED_TOKENS, tuned.shape[1] - SHARED_TOKENS
            ).fixed(),
            "tuned_prompt": tuned,
            "ppo": improved,
        },
        generator,
        rewarding(task, load_labeller(inputs["labeller"]), config.reward),
        load_judge(inputs["labeller"]),
        task.labels,
        joined(examples.texts, examples.pairs),
        joined(rest.texts, rest.pairs),
        samples=config.comparison_samples,
        sampling=config.sampling,
        seed=context.seed,
        report=context.report,
    )
    (context.directory / COMPARISON).write_text(json.dumps(compared, indent=1))
    figures = (
        "reward", "label_agreement", "label_agreement_judge", "self_bleu", "copies",
        "copies_unlabelled",
    )  # fmt: skip
    return {
        f"{figure}_{when}": compared[name][figure]
        for figure in figures
        for when, name in (("before", "tuned_prompt"), ("after", "ppo"))
    }
