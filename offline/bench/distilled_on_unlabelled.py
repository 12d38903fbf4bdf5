"""Stage of the benchmark: the student distilled on the labelled rows and the unlabelled texts alone.

What `distilled_on_knowledge` comes to without generated samples. The stage that makes that one makes this one,
so that both have the same levers.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from offline.bench.knowledge_part import origins, write_part
from offline.pipeline.stage import StageContext
from offline.stages import baselines
from offline.student.baselines import DISTILLED_ON_KNOWLEDGE, BaselinesConfig
from services.student.bundle import load_bundle

NAME = "distilled_on_unlabelled"
BUNDLE = "bundle"


def run(
    inputs: Mapping[str, Path], config: BaselinesConfig, context: StageContext
) -> dict[str, Any]:
    """Write `bundle/`.

    Raises:
        InvalidConfig, CorruptArtifact: see `offline.stages.baselines`.
    """
    aside = context.directory / "aside"
    part = aside / "knowledge"
    part.mkdir(parents=True)
    rows = np.flatnonzero(origins(inputs["knowledge"]) != "generated")
    write_part(inputs["knowledge"], rows, part)
    made = aside / "baselines"
    made.mkdir()
    baselines.run(
        {**inputs, "knowledge": part},
        config,
        StageContext(made, context.seed, context.report),
        networks=(DISTILLED_ON_KNOWLEDGE,),
    )
    (made / DISTILLED_ON_KNOWLEDGE).rename(context.directory / BUNDLE)
    shutil.rmtree(aside)
    manifest = load_bundle(context.directory / BUNDLE).manifest
    return {"items": len(rows), "parameters": manifest.parameters}
