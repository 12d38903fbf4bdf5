"""Labelling in shards: cut the same way always, and joined in order, kept ones and fresh ones."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from offline.pipeline.shards import keep_shard, kept_shard
from offline.teacher.labelling import SHARD_SIZE, joined_shards, text_shards
from services.store.knowledge_schema import fixed_lists


def test_texts_are_cut_with_their_pairs_and_none_is_lost() -> None:
    texts = [f"text {number}" for number in range(SHARD_SIZE * 2 + 3)]
    pairs = [f"pair {number}" for number in range(SHARD_SIZE * 2 + 3)]
    shards = list(text_shards("train", texts, pairs))
    assert [len(shard.texts) for shard in shards] == [SHARD_SIZE, SHARD_SIZE, 3]
    assert [text for shard in shards for text in shard.texts] == texts
    assert [pair for shard in shards for pair in shard.pairs or []] == pairs
    assert len({shard.name for shard in shards}) == 3
    assert {shard.pairs for shard in text_shards("train", texts[:4], None)} == {None}
    assert list(text_shards("train", [], None)) == []


def test_what_was_kept_and_what_is_fresh_are_joined_in_order(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(7, 5)).astype(np.float32)
    soft = random.dirichlet(np.ones(3), size=7).astype(np.float32)

    def table(rows: slice) -> pa.Table:
        columns = {
            "embedding": fixed_lists(embeddings[rows]),
            "soft_label": fixed_lists(soft[rows]),
        }
        return pa.table(columns)

    (shard,) = text_shards("train", ["a"], None)
    keep_shard(tmp_path, shard, table(slice(0, 4)))
    kept = kept_shard(tmp_path, shard)
    for tables in ([kept, table(slice(4, 7))], [table(slice(0, 4)), table(slice(4, 7))]):
        found, labels = joined_shards(tables)
        assert np.array_equal(found, embeddings)
        assert np.array_equal(labels, soft)
        assert found.dtype == labels.dtype == np.float32
