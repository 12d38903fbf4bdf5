import numpy as np
import pytest
import torch
from torch import Tensor

from offline.student.items import TrainingItems, numbered
from offline.student.model import ShapeConfig, Student, StudentShape, make_student
from offline.student.retrieval_loss import RetrievalConfig
from offline.student.training import TrainingConfig, train_student
from services.platform.errors import InvalidConfig

ITEMS, LABELS, FIRST = 40, 2, 4
SIZES = ShapeConfig(
    vocabulary=64,
    codes=0,
    embedding=12,
    hidden=16,
    layers=1,
    heads=2,
    feed_forward=24,
    query=8,
    max_tokens=8,
)
QUICK = TrainingConfig(steps=8, batch_size=4, warm_up=0, dropout=0.1)


def items() -> TrainingItems:
    """The first ones are the surest; the last quarter's soft labels tell nothing."""
    sure = np.concatenate([np.linspace(0.99, 0.6, 30), np.full(10, 0.5)])
    soft_labels = np.stack([sure, 1 - sure], axis=1).astype(np.float32)
    soft_labels[1::2] = soft_labels[1::2, ::-1]
    embeddings = np.random.default_rng(0).normal(size=(ITEMS, 6)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return TrainingItems([f"text {n}" for n in range(ITEMS)], None, soft_labels, embeddings)


def trained(
    config: TrainingConfig, retrieval: RetrievalConfig | None = None, seed: int = 0
) -> tuple[Student, Tensor]:
    """A student, and which items' own token was learned; each item has one of its own."""
    beginning = np.random.default_rng(1).normal(size=(64, SIZES.embedding)).astype(np.float32)
    shape = StudentShape(64, 64, LABELS, SIZES)
    model = make_student(shape, beginning, None, dropout=config.dropout, seed=seed)
    ids = [[2, FIRST + row, 3] for row in range(ITEMS)]
    train_student(model, ids, items(), config, retrieval, seed=seed, report=lambda *_: None)
    moved = (model.tokens.own.weight != torch.from_numpy(beginning)).any(1)
    return model, moved[FIRST : FIRST + ITEMS]


def differ(one: Student, other: Student) -> bool:
    return any(
        not torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_a_curriculum_trains_on_the_surest_items_first() -> None:
    # The surest half of each label, which takes six steps, then two of the surest seven eighths.
    _, moved = trained(QUICK.model_copy(update={"curriculum": 1.0}))
    assert moved[:16].all()
    assert not moved[37:].any()
    _, at_random = trained(QUICK)
    assert at_random[37:].any()


def test_a_curriculum_ends_with_all_items() -> None:
    _, moved = trained(QUICK.model_copy(update={"steps": 30, "curriculum": 0.3}))
    assert moved.all()


def test_items_that_the_labeller_is_not_sure_of_at_all_weigh_nothing() -> None:
    config = QUICK.model_copy(update={"steps": 12, "confidence_power": 1.0})
    _, moved = trained(config)
    assert moved[:30].all()
    assert not moved[30:].any()


def test_mined_candidates_join_after_the_first_refresh() -> None:
    without = trained(QUICK, RetrievalConfig(candidates=0))[0]
    mined = RetrievalConfig(candidates=0, mined=3, refresh=QUICK.steps)
    assert not differ(trained(QUICK, mined)[0], without)
    assert differ(trained(QUICK, mined.model_copy(update={"refresh": 4}))[0], without)


@pytest.mark.parametrize("relevance_weight", [0, 0.5])
def test_all_levers_together_give_the_same_weights_again(relevance_weight: float) -> None:
    config = QUICK.model_copy(update={"confidence_power": 0.5, "curriculum": 0.5})
    retrieval = RetrievalConfig(candidates=8, mined=3, refresh=2, relevance_weight=relevance_weight)
    first, again = (trained(config, retrieval)[0] for _ in range(2))
    assert not differ(first, again)
    assert all(torch.isfinite(weight).all() for weight in first.parameters())


def test_a_training_that_comes_apart_is_told_with_the_step() -> None:
    config = QUICK.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(InvalidConfig, match=r"came apart at step \d+: its loss is (nan|inf)"):
        trained(config)


def test_a_long_text_does_not_multiply_the_memory_of_the_forms() -> None:
    forms = ["b" * 1_000_000, *(f"a{n % 3}" for n in range(30_000))]
    numbers = numbered(forms)
    assert numbers[:5].tolist() == [3, 0, 1, 2, 0]
