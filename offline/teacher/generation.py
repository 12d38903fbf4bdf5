"""Writing the samples of a release: the same number a label, in shards that stand alone."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from offline.configs.section import Section
from offline.teacher.generator import Generator, load_generator
from offline.teacher.prompt_files import load_prompts
from offline.teacher.sampling import SamplingConfig
from offline.teacher.writing import balanced_labels, write

SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("text_pair", pa.string()),
        ("label", pa.string()),
        ("logprob", pa.float32()),
    ]
)
LEFT_OUT = ("incomplete", "empty")
"""Why a sample is not in a shard's table: it did not come to its end in time; or it ended without a text, or, of a
pair, without one of the two."""


class GenerateConfig(Section):
    """How much is written, and how.

    Attributes:
        samples: in all, spread evenly over the labels.
        shard_size: samples of one shard, which are written as one batch.
        sampling: temperature and top-p; with a schedule those of the first shard.
        last_sampling: those of the last shard, as a schedule: the shards between go from the ones to the others in
            equal steps, so that safe samples and varied ones are written in one run. None for no schedule.
    """

    samples: Annotated[int, Field(ge=1)] = 8192
    shard_size: Annotated[int, Field(ge=1)] = 512
    sampling: SamplingConfig = SamplingConfig()
    last_sampling: SamplingConfig | None = None

    def sampling_at(self, share: float) -> SamplingConfig:
        """Temperature and top-p after that share of the shards, 0 for the first and 1 for the last."""
        first, last = self.sampling, self.last_sampling or self.sampling
        return SamplingConfig(
            temperature=first.temperature + share * (last.temperature - first.temperature),
            top_p=first.top_p + share * (last.top_p - first.top_p),
        )


@dataclass(frozen=True, slots=True)
class SampleShard:
    """A part of the work whose result depends on nothing but itself.

    Attributes:
        number: its place.
        seed: of its draws.
        labels: (n,) what is to be written, in this order, as one batch.
        sampling: temperature and top-p.
    """

    number: int
    seed: int
    labels: NDArray[np.int64]
    sampling: SamplingConfig

    @property
    def name(self) -> str:
        """Of the files that keep it."""
        return f"{self.number:05d}"


def shards(config: GenerateConfig, labels: int, seed: int) -> list[SampleShard]:
    """The work cut into shards: always the same, wherever and in whichever order they are run."""
    found = []
    starts = range(0, config.samples, config.shard_size)
    for number, start in enumerate(starts):
        size = min(config.shard_size, config.samples - start)
        asked = balanced_labels(size, labels, first=start)
        sampling = config.sampling_at(number / max(1, len(starts) - 1))
        found.append(SampleShard(number, shard_seed(seed, number), asked, sampling))
    return found


def shard_seed(seed: int, number: int) -> int:
    """The seed of a shard: 63 bits of a hash, so that no two runs share draws."""
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def write_shard(
    shard: SampleShard,
    generator: Generator,
    prompts: Tensor,
    labels: Sequence[str],
) -> pa.Table:
    """The complete samples of a shard: `text`, `text_pair`, `label`, `logprob`.

    Samples that did not come to their end in time, or without a text (of a pair, without one of the two), are left
    out; the table's metadata says how many, see `gathered`. `logprob` is the log-probability of the whole sample under
    the distribution that it was drawn from.
    """
    source = torch.Generator().manual_seed(shard.seed)
    written = write(generator, prompts, shard.labels, shard.sampling, source)
    logprobs = written.sampled.logprobs.sum(1).cpu().tolist()
    pairs = written.pairs
    kept = [row for row in np.flatnonzero(written.complete).tolist() if written.texts[row]]
    ended = int(written.sampled.complete.sum())
    left_out = (len(written.texts) - ended, ended - len(kept))
    table = pa.table(
        {
            "text": [written.texts[row] for row in kept],
            "text_pair": [None if pairs is None else pairs[row] for row in kept],
            "label": [labels[shard.labels[row]] for row in kept],
            "logprob": [logprobs[row] for row in kept],
        },
        SCHEMA,
    )
    return table.replace_schema_metadata(
        {why: str(number) for why, number in zip(LEFT_OUT, left_out, strict=True)}
    )


def gathered(tables: Sequence[pa.Table]) -> tuple[pa.Table, Counter[str]]:
    """The samples of all shards as one table, and how many were left out, by `LEFT_OUT`.

    Args:
        tables: what `write_shard` made.
    """
    left_out = Counter(dict.fromkeys(LEFT_OUT, 0))
    for table in tables:
        left_out.update(left_out_of(table))
    whole = pa.concat_tables([SCHEMA.empty_table(), *tables])
    return whole.replace_schema_metadata(None), left_out


def left_out_of(table: pa.Table) -> Counter[str]:
    """How many samples are not in the table, by `LEFT_OUT`: what its metadata says, none where they do not say."""
    said = table.schema.metadata or {}
    return Counter({why: int(said.get(why.encode(), 0)) for why in LEFT_OUT})


@dataclass(frozen=True, slots=True)
class Writing:
    """Writing shards with the generator and the prompts of finished stages (see `offline.pipeline.shards.Work`).

    Attributes:
        generator: directory of the generator stage.
        prompts: directory of the stage whose prompts they are.
        labels: of the task.
    """

    generator: Path
    prompts: Path
    labels: tuple[str, ...]

    def start(self) -> Callable[[SampleShard], pa.Table]:
        """Load generator and prompts; what is returned writes a shard, see `write_shard`."""
        generator = load_generator(self.generator)
        prompts = load_prompts(self.prompts, self.labels).to(generator.model.device)

        def written(shard: SampleShard) -> pa.Table:
            return write_shard(shard, generator, prompts, self.labels)

        return written
