"""A label with few items weighs as much as its rarity asks for; labels that the student knows weigh what they did."""

from pathlib import Path

import numpy as np
import pytest
from tiny_release import LABELS, write_release

from services.releases.manifest import (
    KNOWLEDGE,
    SOFT_LABELS,
    check_release,
    write_release_manifest,
)
from services.store.backends.edge import EdgeBackend
from services.store.client import EmbeddedStoreClient
from services.store.knowledge_file import (
    Knowledge,
    fixed_lists,
    read_knowledge,
    version_manifest,
    write_knowledge,
)
from services.student.label_balance import label_weights
from services.student.mixing import MixingParameters, mix
from services.student.predictor import Predictor, TextInput


def soft_labels(*items: int) -> np.ndarray:
    """One-hot rows, so many of each label."""
    return np.repeat(np.eye(len(items), dtype=np.float16), items, axis=0)


def test_a_new_label_weighs_by_how_much_rarer_it_is_than_the_known_ones() -> None:
    soft = soft_labels(300, 100, 2)
    np.testing.assert_allclose(label_weights(soft.sum(0, dtype=np.float64), 2, [1.0]), [1, 1, 100])
    np.testing.assert_allclose(label_weights(soft.sum(0, dtype=np.float64), 2, [0.5]), [1, 1, 10])


def test_a_label_with_many_items_is_not_held_down() -> None:
    np.testing.assert_allclose(label_weights(np.array([3.0, 3.0, 30.0]), 2, [1.0]), [1, 1, 1])


@pytest.mark.parametrize(("known", "balances"), [(3, []), (2, [0.0])])
def test_nothing_is_weighed_where_nothing_is_new_or_to_be_balanced(
    known: int, balances: list[float]
) -> None:
    assert label_weights(np.array([5.0, 5.0, 5.0]), known, balances) is None


def test_two_near_items_of_a_new_label_win_over_many_and_the_answer_is_a_distribution() -> None:
    soft = soft_labels(300, 300, 2).astype(np.float32)
    similarities = np.array([[0.9, 0.9, *[0.85] * 6]], np.float32)
    neighbours = soft[[600, 601, 0, 1, 2, 300, 301, 302]][None]
    logits = np.array([[3.0, 0.0]], np.float32)
    parameters = MixingParameters(k=8, similarity_temperature=0.1)
    alone = mix(logits, similarities, neighbours, parameters)
    assert alone.probabilities.argmax() == 0
    weights = label_weights(soft.sum(0, dtype=np.float64), 2, [0.8])
    assert weights is not None
    mixed = mix(logits, similarities, neighbours * weights, parameters)
    assert mixed.probabilities.argmax() == 2
    assert mixed.probabilities.sum() == pytest.approx(1.0, abs=1e-5)
    assert mixed.store.sum() == pytest.approx(1.0, abs=1e-5)


def widened(directory: Path, balance: float) -> Path:
    """A tiny release with a fourth label, which one of its 60 items has."""
    write_release(directory)
    knowledge = read_knowledge(directory / KNOWLEDGE)
    soft = np.pad(knowledge.soft_labels, ((0, 0), (0, 1)))
    soft[0] = (0.0, 0.0, 0.0, 1.0)
    metadata = knowledge.metadata.model_copy(update={"labels": (*LABELS, "phone")})
    column = knowledge.table.column_names.index("soft_label")
    table = knowledge.table.set_column(column, "soft_label", fixed_lists(soft))
    write_knowledge(directory / KNOWLEDGE, Knowledge(metadata, table))
    np.save(directory / SOFT_LABELS, soft.astype(np.float16))
    write_release_manifest(
        directory,
        task=metadata.task,
        labels=metadata.labels,
        store_version=version_manifest(directory / KNOWLEDGE).version,
        encoder_fingerprint=metadata.encoder_fingerprint or "",
        items=len(soft),
        metrics={},
        balances=(balance,),
    )
    return directory


def store_of(release: Path, text: str) -> np.ndarray:
    """(L,) what the release's store says of a text."""
    backend = EdgeBackend(release.parent / "store", knowledge=lambda _: release / KNOWLEDGE)
    client = EmbeddedStoreClient(backend)
    try:
        predictor = Predictor.load(release, client, store_timeout=30.0)
        answer = predictor.predict([TextInput(text)])
        predictor.close()
    finally:
        client.close()
    assert answer.store is not None
    return answer.store[0]


def test_a_release_is_answered_with_its_own_balance(tmp_path: Path) -> None:
    text = read_first_text(widened(tmp_path / "plain", 0.0))
    plain = store_of(tmp_path / "plain", text)
    balanced = store_of(widened(tmp_path / "balanced", 1.0), text)
    assert check_release(tmp_path / "balanced").release != check_release(tmp_path / "plain").release
    # 59 items of three labels, one of the fourth.
    odds = plain[3] / (1 - plain[3])
    assert balanced[3] / (1 - balanced[3]) == pytest.approx(odds * 59 / 3, rel=0.01)


def read_first_text(release: Path) -> str:
    return str(read_knowledge(release / KNOWLEDGE).table["text"][0])
