"""Generation: shards that stand alone, balanced over the labels."""

from collections import Counter
from collections.abc import Callable

import pyarrow as pa
import pytest
import torch

from offline.teacher.generation import (
    SCHEMA,
    GenerateConfig,
    gathered,
    shard_seed,
    shards,
    write_shard,
)
from offline.teacher.generator import Generator
from offline.teacher.sampling import SamplingConfig
from offline.teacher.writing import write

Make = Callable[..., Generator]
LABELS = ("colour", "animal", "weather")


def prompts_of(generator: Generator) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(len(LABELS), 5, generator.model.dimensions)


def test_the_work_is_balanced_over_the_labels_and_cut_the_same_way() -> None:
    work = shards(GenerateConfig(samples=100, shard_size=32), len(LABELS), seed=5)
    assert [len(shard.labels) for shard in work] == [32, 32, 32, 4]
    counts = Counter(label for shard in work for label in shard.labels.tolist())
    assert max(counts.values()) - min(counts.values()) <= 1
    again = shards(GenerateConfig(samples=100, shard_size=32), len(LABELS), seed=5)
    assert [shard.seed for shard in work] == [shard.seed for shard in again]


def test_no_two_shards_of_two_runs_share_a_seed() -> None:
    seeds = {shard_seed(seed, number) for seed in range(20) for number in range(50)}
    assert len(seeds) == 1000


def test_a_shard_s_samples_do_not_depend_on_which_others_ran_before(tiny_generator: Make) -> None:
    generator = tiny_generator()
    prompts = prompts_of(generator)
    config = GenerateConfig(
        samples=60, shard_size=20, sampling=SamplingConfig(temperature=0.9, top_p=0.95)
    )
    work = shards(config, len(LABELS), seed=0)

    def written(order: list[int]) -> list[pa.Table]:
        made = {number: write_shard(work[number], generator, prompts, LABELS) for number in order}
        return [made[number] for number in sorted(made)]

    assert written([0, 1, 2]) == written([2, 0, 1])
    assert written([1]) == written([0, 1, 2])[1:2]


def test_a_schedule_goes_from_the_first_shard_to_the_last_in_equal_steps() -> None:
    config = GenerateConfig(
        samples=50,
        shard_size=10,
        sampling=SamplingConfig(temperature=0.6, top_p=0.8),
        last_sampling=SamplingConfig(temperature=1.4, top_p=1.0),
    )
    found = [shard.sampling for shard in shards(config, len(LABELS), seed=0)]
    assert [round(sampling.temperature, 6) for sampling in found] == [0.6, 0.8, 1.0, 1.2, 1.4]
    assert [round(sampling.top_p, 6) for sampling in found] == [0.8, 0.85, 0.9, 0.95, 1.0]


def test_without_a_schedule_all_shards_are_sampled_alike() -> None:
    config = GenerateConfig(samples=30, shard_size=10, sampling=SamplingConfig(top_p=0.9))
    assert {shard.sampling.top_p for shard in shards(config, len(LABELS), seed=0)} == {0.9}
    (only,) = shards(GenerateConfig(samples=5, shard_size=10), len(LABELS), seed=0)
    assert only.sampling == SamplingConfig()


def test_a_shard_is_written_at_its_own_temperature(tiny_generator: Make) -> None:
    generator = tiny_generator()
    config = GenerateConfig(
        samples=400,
        shard_size=200,
        sampling=SamplingConfig(temperature=0.05),
        last_sampling=SamplingConfig(temperature=1.0),
    )
    cold, warm = (
        write_shard(shard, generator, prompts_of(generator), LABELS)
        for shard in shards(config, len(LABELS), seed=0)
    )
    assert len(set(cold["text"].to_pylist())) < len(set(warm["text"].to_pylist()))


def test_samples_without_an_end_or_without_a_text_are_left_out(tiny_generator: Make) -> None:
    generator = tiny_generator(max_tokens=4)
    (work,) = shards(GenerateConfig(samples=300, shard_size=300), len(LABELS), seed=0)
    table = write_shard(work, generator, prompts_of(generator), LABELS)
    assert 0 < table.num_rows < 300
    assert all(0 < len(text.split()) <= 3 for text in table["text"].to_pylist())
    assert all(value < 0 for value in table["logprob"].to_pylist())
    assert set(table["label"].to_pylist()) <= set(LABELS)
    assert table["text_pair"].null_count == table.num_rows
    source = torch.Generator().manual_seed(work.seed)
    every = write(generator, prompts_of(generator), work.labels, work.sampling, source)
    empty = sum(done and not text for done, text in zip(every.complete, every.texts, strict=True))
    assert empty > 0, "the seed should make some"
    whole, left_out = gathered([table, table])
    assert left_out == {"incomplete": 2 * int((~every.complete).sum()), "empty": 2 * empty}
    assert whole.num_rows + left_out.total() == 600
    assert whole.schema.metadata is None


def test_nothing_written_is_gathered_as_an_empty_table() -> None:
    whole, left_out = gathered([])
    assert whole.schema == SCHEMA
    assert (whole.num_rows, left_out.total()) == (0, 0)


@pytest.mark.parametrize("kind", ["gpt2", "t5", "bart"])
def test_a_pair_task_gets_two_texts(tiny_generator: Make, kind: str) -> None:
    generator = tiny_generator(kind, pair=True, max_tokens=20)
    (work,) = shards(GenerateConfig(samples=400, shard_size=400), len(LABELS), seed=0)
    table = write_shard(work, generator, prompts_of(generator), LABELS)
    assert table.num_rows > 0
    assert all(table["text"].to_pylist())
    assert all(table["text_pair"].to_pylist())
    source = torch.Generator().manual_seed(work.seed)
    every = write(generator, prompts_of(generator), work.labels, work.sampling, source)
    assert every.pairs is not None
    ended = every.sampled.complete.tolist()
    both = [bool(text and pair) for text, pair in zip(every.texts, every.pairs, strict=True)]
    assert every.complete.tolist() == [a and b for a, b in zip(ended, both, strict=True)]
    _, left_out = gathered([table])
    assert left_out == {"incomplete": ended.count(False), "empty": sum(ended) - table.num_rows}
