"""A text's words are looked up as they were counted, whatever is asked beside it or was asked before."""

from pathlib import Path

import numpy as np
import pytest
import tiny_release
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_task import TinyTask, build_task

from offline.store.lexical_fit import fit_lexical
from offline.store.publish import same_release
from services.platform.errors import CorruptArtifact, IncompatibleArtifacts
from services.releases.manifest import LEXICAL, check_release
from services.store.client import EmbeddedStoreClient
from services.student import lexical
from services.student.app import create_app
from services.student.bundle import load_bundle
from services.student.encoder import OnnxEncoder
from services.student.lexical import (
    LexicalIndex,
    LexicalWeights,
    characters_of,
    runs_of,
    words_of,
)
from services.student.lexical_words import said_by_words
from services.student.mixing import blend, head_distribution, mix
from services.student.predictor import Predictor, TextInput
from services.student.settings import StudentSettings

TEXTS = [text for text, _ in tiny_release.sentences(12, seed=7)]
LABELS = len(tiny_release.LABELS)


@pytest.fixture(scope="module")
def fitted() -> LexicalWeights:
    rows = tiny_release.sentences(60, seed=1)
    soft = np.full((60, LABELS), 0.05, np.float32)
    soft[np.arange(60), [label for _, label in rows]] = 0.9
    return fit_lexical([text for text, _ in rows], None, soft, known=LABELS, most_words=24)


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> TinyTask:
    """A task whose releases have lexical indexes. Not to be changed."""
    return build_task(tmp_path_factory.mktemp("worded") / "tiny", lexical=True)


def counted(weights: LexicalWeights, text: str) -> np.ndarray:
    """The logits by the definition: each n-gram alone, one after the other."""
    words = words_of(text, most=weights.most_words)
    runs = {" ".join(words[i : i + n]) for n in (1, 2, 3) for i in range(len(words) - n + 1)}
    characters = [run for word in set(words) for run in characters_of(word)]
    scores = weights.bias.astype(np.float64)
    for grams, names, first in (
        (runs, weights.runs, 0),
        (characters, weights.characters, len(weights.runs)),
    ):
        found = [first + names.index(gram) for gram in grams if gram in names]
        length = np.sqrt(sum(float(weights.idf[row]) ** 2 for row in found)) or 1.0
        for row in found:
            scores = scores + weights.weights[row].astype(np.float64) / length
    return scores


def test_words_and_marks_in_lower_case_cut_on_the_side_that_is_asked_for() -> None:
    assert words_of("Wi-Fi's DOWN!!", most=9) == ("wi", "-", "fi", "'", "s", "down", "!", "!")
    assert words_of("one two three four", most=2) == ("one", "two")
    assert words_of("one two three four", most=2, direction="left") == ("three", "four")
    assert words_of("x" * 1_000_000, most=3) == ("x" * 24,) * 3
    assert words_of(f"{'y ' * 1_000_000}z", most=2, direction="left") == ("y", "z")
    assert words_of("", most=2) == words_of(" \n\t", most=2) == ()


def test_the_second_text_of_a_pair_has_words_of_its_own() -> None:
    first, second = words_of("wifi", "wifi", most=4)
    assert first != second
    assert len(words_of("a b c", "d e f", most=2)) == 4


def test_an_ngram_counts_once() -> None:
    assert list(runs_of(("a", "b", "a", "b"))) == ["a", "b", "a b", "b a", "a b a", "b a b"]
    assert list(runs_of(())) == []
    assert len(list(characters_of("ab"))) == 2 + 1
    assert len(list(characters_of("aaaaaa"))) == 3 * 3


def test_letters_with_marks_are_one_word_however_they_are_written() -> None:
    assert words_of("cafe\u0301", most=4) == words_of("CAFÉ", most=4) == ("café",)


@pytest.mark.parametrize("noise", ["!!!!!!!!!!!!", " please please please please please please"])
def test_what_is_said_over_and_over_says_no_more_than_once(
    fitted: LexicalWeights, noise: str
) -> None:
    index = LexicalIndex(fitted)
    short = index.ask([text + noise[: len(noise) // 6] for text in TEXTS])
    long = index.ask([text + noise for text in TEXTS])
    assert (short.argmax(1) == long.argmax(1)).all()
    assert np.abs(short - long).max() < 0.5


def test_logits_are_those_of_the_definition(fitted: LexicalWeights) -> None:
    texts = [*TEXTS, "printer", "printers, printers!", "???", "", "unheard of: qzxv"]
    index = LexicalIndex(fitted)
    expected = [counted(fitted, text) for text in texts]
    np.testing.assert_allclose(index.ask(texts), expected, atol=1e-4)
    np.testing.assert_allclose(index.ask([""])[0], fitted.bias)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(st.text(st.characters(), max_size=30) | st.sampled_from(TEXTS), max_size=6))
def test_a_text_is_scored_alone_as_beside_others(fitted: LexicalWeights, texts: list[str]) -> None:
    index = LexicalIndex(fitted)
    together = index.ask(texts)
    assert together.shape == (len(texts), LABELS)
    for row, text in enumerate(texts):
        np.testing.assert_allclose(together[row], LexicalIndex(fitted).ask([text])[0], atol=1e-5)


def test_more_words_than_are_remembered_change_nothing(
    fitted: LexicalWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = LexicalIndex(fitted).ask(TEXTS)
    monkeypatch.setattr(lexical, "_REMEMBERED", 5)
    small = LexicalIndex(fitted)
    np.testing.assert_allclose(small.ask(TEXTS), expected, atol=1e-6)
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(small.ask([text])[0], expected[row], atol=1e-6)
    assert len(small._said) <= 48


def test_a_file_gives_what_was_saved_and_equal_weights_equal_bytes(
    fitted: LexicalWeights, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "a")
    fitted.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = LexicalWeights.load(tmp_path / "a", LABELS)
    np.testing.assert_array_equal(LexicalIndex(loaded).ask(TEXTS), LexicalIndex(fitted).ask(TEXTS))
    assert loaded.most_words == 24


def test_a_file_that_is_no_index_or_of_other_labels_is_refused(
    fitted: LexicalWeights, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "a")
    with pytest.raises(CorruptArtifact, match="4 labels"):
        LexicalWeights.load(tmp_path / "a", 4)
    (tmp_path / "b").write_bytes((tmp_path / "a").read_bytes()[:-1])
    (tmp_path / "c").write_bytes(b"")
    for name in ("b", "c", "missing"):
        with pytest.raises(CorruptArtifact, match="no lexical index"):
            LexicalWeights.load(tmp_path / name, LABELS)


def test_a_release_answers_with_its_index_whether_the_store_is_there_or_not(
    worded: TinyTask,
) -> None:
    client = worded.client()
    predictor = worded.predictor(worded.one, client)
    found = predictor.predict([TextInput(text) for text in TEXTS])
    directory = worded.releases.path(worded.one)
    bundle = load_bundle(directory / "bundle")
    logits, query = OnnxEncoder.of_bundle(bundle).encode(TEXTS)
    index = LexicalIndex(LexicalWeights.load(directory / LEXICAL, LABELS))
    blended = blend(logits, index.ask(TEXTS), 0.5)
    hits = client.search(predictor.manifest.store_version, query, 4)
    soft = np.load(directory / "soft_labels.npy")[hits.ids].astype(np.float32)
    mixed = mix(blended, hits.scores, soft, bundle.manifest.mixing)
    np.testing.assert_allclose(found.probabilities, mixed.probabilities, atol=1e-5)
    assert np.abs(found.student - head_distribution(logits, bundle.manifest.mixing)).max() > 0.01
    client.close()
    alone = predictor.predict([TextInput(text) for text in TEXTS])
    assert alone.degraded is not None
    np.testing.assert_allclose(alone.probabilities, mixed.student, atol=1e-5)
    predictor.close()


def test_a_blend_is_the_weighted_geometric_mean() -> None:
    one, other = np.log([[0.7, 0.2, 0.1]]), np.log([[0.1, 0.1, 0.8]])
    blended = np.exp(blend(one, other, 0.25))
    expected = np.exp(one) ** 0.75 * np.exp(other) ** 0.25
    np.testing.assert_allclose(blended / blended.sum(), expected / expected.sum())


def test_a_release_without_the_index_that_its_student_wants_is_refused(
    worded: TinyTask, tmp_path: Path
) -> None:
    task = worded.copy(tmp_path / "tiny")
    directory = task.releases.path(task.one)
    index = (directory / LEXICAL).read_bytes()
    client = task.client()
    (directory / LEXICAL).write_bytes(index[:-2] + b"\0\0")
    with pytest.raises(CorruptArtifact, match="lexical.safetensors differ"):
        Predictor.load(directory, client)
    (directory / LEXICAL).unlink()
    with pytest.raises(CorruptArtifact, match="lexical.safetensors differ"):
        check_release(directory)
    staged = tmp_path / "staged"
    tiny_release.write_release(staged, lexical=True)
    (staged / LEXICAL).unlink()
    from test_predictor import rewrite

    rewrite(staged)
    with pytest.raises(IncompatibleArtifacts, match=r"no lexical\.safetensors beside it"):
        Predictor.load(staged, client)
    client.close()


def test_pairs_are_looked_up_by_both_texts(tmp_path: Path) -> None:
    task = build_task(tmp_path / "pairs", pair=True, lexical=True)
    client: EmbeddedStoreClient = task.client()
    predictor = task.predictor(task.one, client)
    one, other = predictor.predict(
        [TextInput("wifi slow", "toner jam"), TextInput("wifi slow", "wifi slow")]
    ).student
    assert np.abs(one - other).max() > 0.01
    predictor.close()
    client.close()


def test_what_words_say_adds_up_to_the_index_s_part_of_the_answer(fitted: LexicalWeights) -> None:
    index = LexicalIndex(fitted)
    for text, label in (("my printers are offline, again", 1), ("wifi wifi slow", 2), ("???", 0)):
        words = index.words(text)
        found = said_by_words(index, words, label, 0.5)
        assert [word.word for word in found] == list(words)
        centred = index.logits([words])[0] - index.logits([words])[0].mean()
        bias = fitted.bias[label] - fitted.bias.mean()
        total = sum(word.weight for word in found) + 0.5 * bias
        np.testing.assert_allclose(total, 0.5 * centred[label], atol=1e-4)
    assert said_by_words(index, (), 0, 0.5) == []
    strongest = max(
        said_by_words(index, index.words("my printer please"), 1, 0.5), key=lambda w: w.weight
    )
    assert strongest.word == "printer"


def test_an_explanation_tells_what_the_words_said(worded: TinyTask, built_task: TinyTask) -> None:
    for task in (worded, built_task):
        with TestClient(create_app(StudentSettings(task_dir=task.directory))) as client:
            body = {"inputs": "Printer jam!", "explain": True}
            words = client.post("/predict", json=body).json()["predictions"][0]["words"]
        if task is built_task:
            assert words is None
        else:
            assert [word["word"] for word in words] == ["printer", "jam", "!"]
            assert words[0]["weight"] > 0
            assert not any(word["second"] for word in words)


def test_a_release_without_an_index_is_told_as_it_was_before_there_were_any(
    worded: TinyTask, built_task: TinyTask
) -> None:
    told = (built_task.releases.path(built_task.one) / "manifest.json").read_text()
    assert "lexical" not in told
    found = worded.releases.get(worded.one)
    assert found.lexical_sha256 is not None
    assert not same_release(found, found.model_copy(update={"lexical_sha256": "0" * 64}))
    assert same_release(found, found.model_copy(update={"store_version": "v-000000000000"}))
