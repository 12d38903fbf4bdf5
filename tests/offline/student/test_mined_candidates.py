import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from offline.student import mined_candidates
from offline.student.mined_candidates import MinedCandidates, nearest_others
from offline.student.retrieval_loss import Batch, RetrievalConfig

ITEMS = 40


def vectors(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(ITEMS, 8, generator=generator), dim=1)


def candidates(count: int, texts: Tensor | None = None) -> MinedCandidates:
    generator = torch.Generator().manual_seed(0)
    soft_labels = torch.softmax(torch.randn(ITEMS, 4, generator=generator), dim=1)
    texts = torch.arange(ITEMS) if texts is None else texts
    config = RetrievalConfig(mined=count, refresh=10)
    return MinedCandidates(texts, torch.eye(ITEMS), soft_labels, config)


def by_hand(queries: Tensor, row: int, count: int) -> list[int]:
    scores = (queries @ queries[row]).numpy()
    return [int(other) for other in np.argsort(-scores) if other != row][:count]


def test_rows_find_the_nearest_items_of_the_last_refresh() -> None:
    mined = candidates(3)
    rows = torch.tensor([5, 17])
    for seed in (1, 2):
        queries = vectors(seed)
        mined.refresh(queries)
        found = mined.of(rows)
        assert found is not None
        nearest = {*by_hand(queries, 5, 3), *by_hand(queries, 17, 3)}
        assert set(found.texts.tolist()) == nearest
        assert torch.equal(found.queries, queries[found.texts])
        assert torch.equal(found.embeddings, torch.eye(ITEMS)[found.texts])
    assert {*by_hand(vectors(1), 5, 3)} != {*by_hand(vectors(2), 5, 3)}


def test_there_are_none_before_the_first_refresh() -> None:
    mined = candidates(3)
    assert mined.of(torch.arange(4)) is None
    assert [step for step in range(1, 40) if mined.due(step)] == [11, 21, 31]


def test_an_item_that_several_rows_find_comes_once() -> None:
    mined = candidates(30)
    mined.refresh(vectors(1))
    found = mined.of(torch.arange(10))
    assert found is not None
    assert len(found.texts) == len(found.texts.unique()) <= ITEMS


def test_neither_a_row_nor_another_of_its_text_is_found() -> None:
    texts = torch.arange(ITEMS)
    texts[8] = 3
    queries = vectors(1)
    queries[8] = queries[3]
    index = Batch(texts, queries, torch.eye(ITEMS), torch.eye(ITEMS))
    found = nearest_others(index, torch.tensor([3, 8]), ITEMS - 2)
    assert sorted(found[0].tolist()) == [row for row in range(ITEMS) if row not in (3, 8)]
    assert torch.equal(found[0], found[1])


def test_more_than_there_are_is_padded() -> None:
    index = Batch(torch.tensor([0, 1, 1]), vectors(1)[:3], torch.eye(3), torch.eye(3))
    found = nearest_others(index, torch.arange(3), 5)
    assert (found >= 0).sum(1).tolist() == [2, 1, 1]
    assert (found[:, 2:] == -1).all()
    config = RetrievalConfig(mined=5)
    mined = MinedCandidates(index.texts, index.embeddings, index.soft_labels, config)
    mined.refresh(index.queries)
    of_one = mined.of(torch.tensor([1]))
    assert of_one is not None
    assert of_one.texts.tolist() == [0]


def test_blocks_find_what_one_search_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    index = Batch(torch.arange(ITEMS), vectors(1), torch.eye(ITEMS), torch.eye(ITEMS))
    whole = nearest_others(index, torch.arange(ITEMS), 6)
    monkeypatch.setattr(mined_candidates, "_SCORES_AT_ONCE", 7 * ITEMS)
    assert torch.equal(nearest_others(index, torch.arange(ITEMS), 6), whole)
