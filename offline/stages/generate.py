"""Stage `generate`: write samples behind the improved prompts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from offline.pipeline.shards import run_shards
from offline.pipeline.stage import StageContext
from offline.tasks.prepared import PreparedTask
from offline.teacher.generation import (
    GenerateConfig,
    SampleShard,
    Writing,
    gathered,
    shards,
)
from offline.teacher.generator import generator_identity


def run(
    inputs: Mapping[str, Path], config: GenerateConfig, context: StageContext
) -> dict[str, Any]:
    """Write `samples.parquet` (`text`, `text_pair`, `label`, `logprob`); its metadata names the generator, and says how
    many samples are left out, see `offline.teacher.generation.left_out_of`.

    A run that was killed writes only the shards that it had not finished.
    """
    task = PreparedTask.load(inputs["prepare"])
    # Whole paths: a process that does shards may stand somewhere else.
    work = Writing(inputs["generator"].resolve(), inputs["ppo"].resolve(), tuple(task.labels))
    written = 0

    def done(shard: SampleShard) -> None:
        nonlocal written
        written += len(shard.labels)
        context.report(written, config.samples, {})

    asked = shards(config, len(task.labels), context.seed)
    table, left_out = gathered(run_shards(context.engine, work, asked, context.partial, done))
    told = {why: str(number) for why, number in left_out.items()}
    table = table.replace_schema_metadata(
        {"generator": generator_identity(inputs["generator"]), **told}
    )
    pq.write_table(table, context.directory / "samples.parquet", compression="zstd")
    return {"samples": table.num_rows, **left_out}
