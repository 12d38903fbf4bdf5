"""The file of what edits add to a release's answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

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


def load(path: Path, *, known: int = 3, labels: int = 5, items: int = 6) -> EditedAnswers:
    return load_edited(path, known=known, labels=labels, items=items, most_words=8)


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


def test_a_file_of_another_release_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    EditedAnswers(WORDS, None).save(path)
    with pytest.raises(CorruptArtifact, match="weights of 3 n-grams for 4 labels"):
        load(path, labels=6)
    EditedAnswers(None, CORRECTIONS).save(path)
    with pytest.raises(CorruptArtifact, match=r"corrections\.values"):
        load(path, known=2)
    with pytest.raises(CorruptArtifact, match="ids of 5 items"):
        load(path, items=5)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptArtifact, match="not what edits add"):
        load(path)


@pytest.mark.parametrize(
    ("items", "values"),
    [
        (np.array([5, 2]), CORRECTIONS.values),
        (np.array([2.0, 5.0]), CORRECTIONS.values),
        (np.array([-1, 5]), CORRECTIONS.values),
        (np.array(5), CORRECTIONS.values),
        (CORRECTIONS.items, np.full((2, 3), np.nan, np.float16)),
        (CORRECTIONS.items, CORRECTIONS.values.astype(np.float32)),
    ],
)
def test_corrections_that_none_could_have_written_are_refused(
    tmp_path: Path, items: NDArray[Any], values: NDArray[Any]
) -> None:
    EditedAnswers(None, Corrections(items, values)).save(tmp_path / "a")
    with pytest.raises(CorruptArtifact, match="not what edits add"):
        load(tmp_path / "a")
