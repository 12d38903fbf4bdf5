"""Stage `soft_prompt`: tune virtual tokens for each label in front of the frozen generator."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offline.pipeline.stage import StageContext
from offline.tasks.prepared import PreparedTask
from offline.teacher.generator import SHARED_TOKENS, load_generator
from offline.teacher.prompt_files import save_prompts
from offline.teacher.soft_prompt import SoftPromptConfig, name_prompt, tune


def run(
    inputs: Mapping[str, Path], config: SoftPromptConfig, context: StageContext
) -> dict[str, Any]:
    """Write the tuned prompts in PEFT's format and `log.jsonl`, one row an epoch."""
    task = PreparedTask.load(inputs["prepare"])
    generator = load_generator(inputs["generator"])
    names = [task.label_texts[label] for label in task.labels]
    prompt = name_prompt(generator, names, SHARED_TOKENS, config.label_tokens)
    examples = task.examples("train")
    pairs: Sequence[str | None] = examples.pairs or [None] * len(examples)
    tuned = tune(
        prompt,
        generator,
        [
            generator.framing.encode(text, pair)[: generator.max_tokens]
            for text, pair in zip(examples.texts, pairs, strict=True)
        ],
        task.label_ids(examples).tolist(),
        config,
        seed=context.seed,
        report=context.report,
    )
    save_prompts(prompt.fixed(), task.labels, generator.identity, context.directory)
    with (context.directory / "log.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in tuned.rows)
    return {
        "virtual_tokens": prompt().shape[1],
        "held_out_loss_before": tuned.before,
        "held_out_loss_after": tuned.after,
    }
