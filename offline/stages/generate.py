"""Stage `generate`: write samples behind the improved prompts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from offline.pipeline.stage import StageContext
from offline.tasks.prepared import PreparedTask
from offline.teacher.generation import SCHEMA, GenerateConfig, shards, write_shard
from offline.teacher.generator import load_generator
from offline.teacher.prompt_files import load_prompts


def run(
    inputs: Mapping[str, Path], config: GenerateConfig, context: StageContext
) -> dict[str, Any]:
    """Write `samples.parquet` (`text`, `text_pair`, `label`, `logprob`); its metadata names the generator."""
    task = PreparedTask.load(inputs["prepare"])
    generator = load_generator(inputs["generator"])
    prompts = load_prompts(inputs["ppo"], task.labels).to(generator.model.device)
    tables = []
    written = 0
    for shard in shards(config, len(task.labels), context.seed):
        tables.append(write_shard(shard, generator, prompts, task.labels, config.sampling))
        written += len(shard.labels)
        context.report(written, config.samples, {})
    table = pa.concat_tables([SCHEMA.empty_table(), *tables])
    table = table.replace_schema_metadata({"generator": generator.identity})
    pq.write_table(table, context.directory / "samples.parquet", compression="zstd")
    return {"samples": table.num_rows, "incomplete": config.samples - table.num_rows}
