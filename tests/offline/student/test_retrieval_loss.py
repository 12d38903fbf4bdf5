import pytest
import torch
from torch import Tensor
from torch.nn import functional

from offline.student.retrieval_loss import Batch, RetrievalConfig, RetrievalLoss


def batch(count: int = 12, seed: int = 0, texts: Tensor | None = None) -> Batch:
    torch.manual_seed(seed)
    return Batch(
        torch.arange(count) + 100 * seed if texts is None else texts,
        functional.normalize(torch.randn(count, 8), dim=1).requires_grad_(),
        functional.normalize(torch.randn(count, 16), dim=1),
        torch.softmax(3 * torch.randn(count, 4), dim=1),
    )


def test_finding_what_the_labeller_finds_near_costs_least() -> None:
    loss = RetrievalLoss(RetrievalConfig(relevance_weight=1, candidates=0))
    found = batch()
    embeddings = functional.normalize(torch.randn(12, 8), dim=1)
    same_labels = torch.full((12, 4), 0.25)
    as_labeller = found._replace(queries=embeddings, embeddings=embeddings, soft_labels=same_labels)
    shuffled = as_labeller._replace(queries=embeddings.flip(0))
    assert float(loss(as_labeller)[0]) == pytest.approx(0, abs=1e-4)
    assert float(loss(shuffled)[0]) > 1


def test_neighbours_of_the_same_label_make_the_answer_right() -> None:
    labels = torch.eye(4).repeat(3, 1)
    directions = torch.eye(8)[:4].repeat(3, 1)
    loss = RetrievalLoss(RetrievalConfig(candidates=0))
    texts = torch.arange(12)
    together = Batch(texts, directions, torch.eye(16)[:12], labels)
    apart = together._replace(queries=torch.eye(8)[torch.arange(12) % 3])
    assert float(loss(together)[1]) < 0.1
    assert float(loss(apart)[1]) > 1


def test_a_row_never_finds_its_own_text() -> None:
    """Two copies of a text and one other text: only the other may answer."""
    queries = functional.normalize(torch.ones(3, 8), dim=1)
    labels = torch.eye(4)[[0, 0, 1]]
    loss = RetrievalLoss(RetrievalConfig(candidates=0))
    _, answer = loss(Batch(torch.tensor([7, 7, 9]), queries, torch.eye(16)[:3], labels))
    # All three answers are wrong: found itself, the first two would be right.
    assert float(answer) > 10


def test_the_latest_items_are_candidates_and_no_more_than_asked_for() -> None:
    loss = RetrievalLoss(RetrievalConfig(candidates=20))
    for seed in range(4):
        loss(batch(seed=seed))
    assert loss.latest is not None
    assert loss.latest.texts.tolist() == [*range(300, 312), *range(200, 208)]
    assert not loss.latest.queries.requires_grad


def test_gradients_reach_the_queries_of_the_batch() -> None:
    loss = RetrievalLoss(RetrievalConfig(relevance_weight=1))
    loss(batch(seed=1))
    found = batch(seed=2)
    relevance, answer = loss(found)
    for part in (relevance, answer):
        (gradient,) = torch.autograd.grad(part, found.queries, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0


def test_a_part_of_no_weight_costs_nothing_and_keeps_no_embeddings() -> None:
    loss = RetrievalLoss(RetrievalConfig(relevance_weight=0))
    relevance, answer = loss(batch(seed=1))
    _, weighted = RetrievalLoss(RetrievalConfig(relevance_weight=1))(batch(seed=1))
    assert float(relevance) == 0
    assert torch.equal(answer, weighted)
    assert loss.latest is not None
    assert loss.latest.embeddings.numel() == 0


def test_mined_items_may_answer_and_do_not_stay() -> None:
    """The batch's labels are wrong for its row; the mined item is near it and right."""
    queries = functional.normalize(torch.eye(8)[:2] + 0.1, dim=1)
    own = Batch(torch.arange(2), queries, torch.eye(16)[:2], torch.eye(4)[:2])
    mined = Batch(torch.tensor([7, 8]), queries, torch.eye(16)[2:4], torch.eye(4)[:2])
    loss = RetrievalLoss(RetrievalConfig(candidates=0))
    assert float(loss(own)[1]) > 10
    assert float(loss(own, mined)[1]) < 0.1
    assert float(loss(own)[1]) > 10


@pytest.mark.parametrize("relevance_weight", [0, 1])
def test_mined_items_that_are_candidates_already_count_once(relevance_weight: float) -> None:
    config = RetrievalConfig(relevance_weight=relevance_weight)
    losses = [RetrievalLoss(config), RetrievalLoss(config)]
    for loss in losses:
        loss(batch(seed=1))
    without, beside = losses[0](batch(seed=2)), losses[1](batch(seed=2), batch(seed=1))
    assert torch.equal(torch.stack(beside), torch.stack(without))


def test_rows_weigh_in_the_means() -> None:
    config = RetrievalConfig(relevance_weight=1, candidates=0)
    whole = torch.stack(RetrievalLoss(config)(batch()))
    parts = [
        torch.stack(RetrievalLoss(config)(batch(), weights=weights)) for weights in torch.eye(12)
    ]
    torch.testing.assert_close(torch.stack(parts).sum(0), whole)
    torch.testing.assert_close(
        torch.stack(RetrievalLoss(config)(batch(), weights=torch.full((12,), 2.0))), 2 * whole
    )
    assert not torch.allclose(parts[0], parts[1])
