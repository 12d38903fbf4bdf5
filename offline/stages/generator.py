"""Stage `generator`: make the miniature language model, or check the one that the configuration names."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline.pipeline.stage import StageContext
from offline.tasks.prepared import PreparedTask
from offline.teacher.generator import DESCRIPTION, GeneratorConfig, describe_generator
from offline.teacher.miniature import make_miniature, save_miniature
from offline.teacher.precision import settled


def run(
    inputs: Mapping[str, Path], config: GeneratorConfig, context: StageContext
) -> dict[str, Any]:
    """Write `generator.json` and, for the miniature, the Hugging Face directory `model/`.

    Raises:
        InvalidConfig, ModelNotFound: see `describe_generator`.
    """
    task = PreparedTask.load(inputs["prepare"])
    figures: dict[str, Any] = {}
    if config.model is None:
        made = make_miniature(
            task.examples("train"),
            task.examples("unlabelled"),
            task.label_texts,
            config,
            pair=task.pair,
            seed=context.seed,
            report=context.report,
        )
        save_miniature(made, context.directory, settled(config.precision, config.device))
        figures = {"loss": made.loss, "steps": made.steps}
    description = describe_generator(
        config, pair=task.pair, names=list(task.label_texts.values()), directory=context.directory
    )
    (context.directory / DESCRIPTION).write_text(json.dumps(description, indent=1))
    return {"parameters": description["parameters"], "identity": description["identity"], **figures}
