"""Knowledge items: soft labels of labelled rows, columns of the file, the sheet of samples."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from offline.store.knowledge import Items, gold_and_labeller, knowledge_of, positions
from offline.store.sample_sheet import sample_sheet
from services.store.knowledge_file import KnowledgeMetadata, read_knowledge, write_knowledge

LABELS = ("loss", "fee", "other")
METADATA = KnowledgeMetadata(task="bank", labels=LABELS)


def rows(*values: tuple[float, float, float]) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def items(origin: str, texts: list[str], labels: list[str] | None) -> Items:
    soft = np.tile(rows((0.7, 0.2, 0.1)), (len(texts), 1))
    return Items(origin, texts, None, labels, soft, np.eye(len(texts), 8, dtype=np.float32))


def test_gold_and_labeller_multiply_as_bayes_has_it() -> None:
    cross_fitted = rows((0.5, 0.3, 0.2))
    found = gold_and_labeller(cross_fitted, np.array([1]), 0.8)
    expected = np.array([0.5 * 0.1, 0.3 * 0.8, 0.2 * 0.1])
    assert np.allclose(found, expected / expected.sum(), atol=1e-6)


def test_a_gold_label_wins_against_doubt_but_is_softened_by_certainty() -> None:
    cross_fitted = rows((0.3, 0.4, 0.3), (0.999, 0.0005, 0.0005), (1.0, 0.0, 0.0))
    found = gold_and_labeller(cross_fitted, np.array([0, 1, 1]), 0.9)
    assert found[0].argmax() == 0
    assert found[1, 0] > 0.5
    assert found[2, 1] > 0
    assert np.allclose(found.sum(1), 1)


def test_items_keep_their_order_and_say_where_they_come_from() -> None:
    knowledge = knowledge_of(
        [
            items("generated", ["a", "b"], ["fee", "loss"]),
            items("train", ["c"], ["loss"]),
            items("unlabelled", ["d"], None),
        ],
        METADATA,
        labeller="encoder/softmax-1",
        generator="miniature-2",
    )
    found = knowledge.table.to_pydict()
    assert found["id"] == [0, 1, 2, 3]
    assert found["text"] == ["a", "b", "c", "d"]
    assert found["label"] == ["fee", "loss", "loss", None]
    assert found["generator"] == ["miniature-2", "miniature-2", None, None]
    assert found["labeller"] == ["encoder/softmax-1"] * 4
    scores = [dict(row) for row in found["quality"]]
    assert scores[0] == pytest.approx({"confidence": 0.7, "agreement": 0.2})
    assert scores[3] == pytest.approx({"confidence": 0.7})


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    knowledge = knowledge_of(
        [items("train", ["c", "d"], ["loss", "fee"]), items("unlabelled", [], None)],
        METADATA,
        labeller="l",
        generator=None,
    )
    path = tmp_path / "knowledge.parquet"
    first = write_knowledge(path, knowledge)
    read = read_knowledge(path)
    assert read.metadata == METADATA
    assert np.array_equal(read.soft_labels, knowledge.soft_labels)
    assert read.table["text"].to_pylist() == ["c", "d"]
    assert write_knowledge(path, knowledge) == first


def test_taking_rows_takes_them_from_every_column() -> None:
    whole = Items(
        "generated",
        ["a", "b", "c"],
        ["x", "y", "z"],
        ["fee", "loss", "fee"],
        np.eye(3, dtype=np.float32),
        np.eye(3, 4, dtype=np.float32),
        np.array([0.1, 0.2, 0.3], dtype=np.float32),
    )
    part = whole.take([2, 0])
    assert part.texts == ["c", "a"]
    assert part.joined == ["c\nz", "a\nx"]
    assert part.labels == ["fee", "fee"]
    assert part.soft_labels.argmax(1).tolist() == [2, 0]
    assert part.embeddings.argmax(1).tolist() == [2, 0]
    assert part.nearest is not None
    assert part.nearest.tolist() == pytest.approx([0.3, 0.1])


def test_positions_follow_the_labels_order() -> None:
    assert positions(["fee", "loss"], LABELS).tolist() == [1, 0]
    assert positions([], LABELS).shape == (0,)


def test_the_sheet_shows_kept_and_dropped_samples_of_every_label_as_plain_lines() -> None:
    texts = [f"sample {row}" for row in range(20)] + ["# not a\nheading `x`"]
    written_for = np.array([0] * 10 + [1] * 11)
    soft = np.tile(rows((0.6, 0.3, 0.1)), (21, 1))
    reasons: list[str | None] = [None] * 8 + ["copy", "too_short"] + [None] * 11
    sheet = sample_sheet(LABELS, texts, written_for, soft, reasons, left_out=2, task="bank", seed=0)
    assert "23 were written, 2 of them without an end or a text; 19 are kept." in sheet
    assert "## loss" in sheet
    assert "8 of 10 kept." in sheet
    assert "## other\n\n0 of 0 kept." in sheet
    assert sheet.count("- kept (0.60)") == 6
    assert "- dropped, `copy` (0.60): `sample 8`" in sheet
    assert "(0.60 loss)" in sheet
    assert "- `copy`: " in sheet
    assert "- `surplus`: " not in sheet
    assert not any(line.startswith("heading") for line in sheet.splitlines())
    again = sample_sheet(LABELS, texts, written_for, soft, reasons, left_out=2, task="bank", seed=0)
    assert sheet == again
