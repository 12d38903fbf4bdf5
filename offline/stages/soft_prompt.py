"""Stage `soft_prompt`: tune virtual tokens for each label in front of the frozen generator."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline.pipeline.stage import StageContext
from offline.tasks.prepared import PreparedTask
from offline.teacher.generator import SHARED_TOKENS, load_generator
from offline.teacher.prompt_files import save_prompts
from offline.teacher.run_log import RunLog
from offline.teacher.soft_prompt import SoftPromptConfig, name_prompt, tune


def run(
    inputs: Mapping[str, Path], config: SoftPromptConfig, context: StageContext
) -> dict[str, Any]:
    """Write the tuned prompts in PEFT's format, and `log.jsonl` and TensorBoard's events, one row an epoch."""
    task = PreparedTask.load(inputs["prepare"])
    generator = load_generator(inputs["generator"])
    names = [task.label_texts[label] for label in task.labels]
    prompt = name_prompt(generator, names, SHARED_TOKENS, config.label_tokens)
    examples = task.examples("train")
    texts = generator.framing.encode_all(examples.texts, examples.pairs, generator.max_tokens)
    with RunLog(context.directory, step="epoch") as log:
        tuned = tune(
            prompt,
            generator,
            texts,
            task.label_ids(examples).tolist(),
            config,
            seed=context.seed,
            report=context.report,
            log=log,
        )
    save_prompts(
        prompt.fixed(),
        task.labels,
        generator.identity,
        context.directory,
        task_type=generator.model.task_type,
    )
    return {
        "virtual_tokens": prompt().shape[1],
        "held_out_loss_before": tuned.before,
        "held_out_loss_after": tuned.after,
    }
