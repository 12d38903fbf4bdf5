"""Stage `generate`: write samples behind the improved prompts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from offline.pipeline.stage import StageContext
from offline.tasks.prepared import PreparedTask
from offline.teacher.generation import (
    SCHEMA,
    GenerateConfig,
    keep_shard,
    kept_shard,
    shards,
    write_shard,
)
from offline.teacher.generator import load_generator
from offline.teacher.prompt_files import load_prompts


def run(
    inputs: Mapping[str, Path], config: GenerateConfig, context: StageContext
) -> dict[str, Any]:
    """Write `samples.parquet` (`text`, `text_pair`, `label`, `logprob`); its metadata names the generator.

    A run that was killed writes only the shards that it had not finished.
    """
    task = PreparedTask.load(inputs["prepare"])
    generator = load_generator(inputs["generator"])
    prompts = load_prompts(inputs["ppo"], task.labels).to(generator.model.device)
    tables = []
    written = 0
    for shard in shards(config, len(task.labels), context.seed):
        table = kept_shard(context.partial, shard)
        if table is None:
            table = write_shard(shard, generator, prompts, task.labels, config.sampling)
            keep_shard(context.partial, shard, table)
        tables.append(table)
        written += len(shard.labels)
        context.report(written, config.samples, {})
    table = pa.concat_tables([SCHEMA.empty_table(), *tables])
    table = table.replace_schema_metadata({"generator": generator.identity})
    pq.write_table(table, context.directory / "samples.parquet", compression="zstd")
    return {"samples": table.num_rows, "incomplete": config.samples - table.num_rows}
