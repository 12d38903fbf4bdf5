"""The file of what edits add to a release's answers."""

from pathlib import Path

import numpy as np
import pytest

from services.platform.errors import CorruptArtifact
from services.student.added_words import AddedWords
from services.student.corrections import Corrections
from services.student.edited import EditedAnswers, load_edited
from services.student.lexical import LexicalWeights

WORDS = AddedWords(
    LexicalWeights(
        ("phone", "sim card"),
        ("pho",),
        np.array([1.0, 1.0, 1.0], np.float32),
        np.array([[-1, 2, 0], [-1, 0, 3], [0, 1, 0]], np.float16),
        np.array([1.0, 0.0, 0.0], np.float32),
        8,
    )
)
CORRECTIONS = Corrections(
    np.array([2, 5], np.int64), np.array([[0.5, -0.25, -0.25], [0, 0, 0]], np.float16)
)


def load(path: Path, *, known: int = 3, labels: int = 5) -> EditedAnswers:
    return load_edited(path, known=known, labels=labels, most_words=8)


@pytest.mark.parametrize(
    ("words", "corrections"), [(WORDS, CORRECTIONS), (WORDS, None), (None, CORRECTIONS)]
)
def test_a_file_gives_what_was_saved_and_equal_parts_equal_bytes(
    tmp_path: Path, words: AddedWords | None, corrections: Corrections | None
) -> None:
    EditedAnswers(words, corrections).save(tmp_path / "a")
    EditedAnswers(words, corrections).save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = load(tmp_path / "a")
    assert (found.words is None) == (words is None)
    if found.words is not None and words is not None:
        assert found.words.labels == 2
        texts = ["my phone", "a SIM card", ""]
        np.testing.assert_array_equal(found.words.ask(texts), words.ask(texts))
    assert (found.corrections is None) == (corrections is None)
    if found.corrections is not None:
        np.testing.assert_array_equal(found.corrections.items, CORRECTIONS.items)
        np.testing.assert_array_equal(found.corrections.values, CORRECTIONS.values)


def test_a_release_without_edits_has_no_file(tmp_path: Path) -> None:
    EditedAnswers().save(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert load(tmp_path / "a") == EditedAnswers()


def test_a_file_of_other_labels_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    EditedAnswers(WORDS, None).save(path)
    with pytest.raises(CorruptArtifact, match="other labels"):
        load(path, labels=6)
    EditedAnswers(None, CORRECTIONS).save(path)
    with pytest.raises(CorruptArtifact, match="other labels"):
        load(path, known=2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptArtifact, match="cannot be read"):
        load(path)
