"""What edits add to a release's answers: words of new labels, and corrections."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edited_task import (
    PHONES,
    add,
    add_phones,
    live,
    relabel,
    remove,
)
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from offline.knowledge.asking import AskedKnowledge
from offline.knowledge.items import Filter, Items
from offline.knowledge.journal import item_keys
from offline.knowledge.outcome import Edited
from offline.store.publish import open_predictor
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import (
    BUNDLE,
    EDITED,
    KNOWLEDGE,
    write_release_manifest,
)
from services.store.knowledge_file import read_knowledge
from services.student.app import create_app
from services.student.bundle import load_bundle
from services.student.edited import EditedAnswers
from services.student.encoder import OnnxEncoder
from services.student.predictor import TextInput, open_edited, open_lexical
from services.student.settings import StudentSettings


def test_the_words_of_a_new_label_have_a_say_in_what_is_served_and_in_what_the_gate_asks(
    task: Path,
) -> None:
    made = add_phones(task)
    directory = ReleaseDirectory(task / "releases").path(str(made.release))
    text = "handset abroad please"
    with open_predictor(directory) as predictor:
        tokens = predictor.tokenize([TextInput(text)])
        served = predictor.predict_tokens(tokens).probabilities
        said = predictor.words(tokens[0], 3)
        bundle, balances = predictor.bundle, predictor.manifest.balances
    assert said is not None
    assert [word.word for word in said] == ["handset", "abroad", "please"]
    assert said[0].weight > 0
    knowledge = read_knowledge(directory / KNOWLEDGE)
    encoder = OnnxEncoder.of_bundle(load_bundle(directory / BUNDLE))
    edited = open_edited(directory, bundle, live(task))
    assert edited.words is not None
    assert edited.corrections is not None
    answers = []
    for part in (edited, EditedAnswers(None, edited.corrections)):
        asked = AskedKnowledge(encoder, bundle, knowledge, open_lexical(directory, bundle), part)
        answers.append(asked.mixed(asked.scores([text], None), balances).probabilities)
    np.testing.assert_allclose(answers[0], served, atol=1e-3)
    by_words = edited.words.ask([text])
    np.testing.assert_allclose(answers[0][:, 3:], (answers[1][:, 3:] + by_words) / 2, atol=1e-5)


def test_what_was_added_and_relabelled_corrects_answers_and_edits_after_that_keep_it(
    task: Path,
) -> None:
    def corrections(release: str | None) -> tuple[list[str], NDArray[np.float16]]:
        directory = ReleaseDirectory(task / "releases").path(str(release))
        bundle = load_bundle(directory / BUNDLE).manifest
        found = open_edited(directory, bundle, live(task)).corrections
        assert found is not None
        texts = Items.of(task).texts
        return [texts[row] for row in found.items], found.values

    assert not list((task / "releases").rglob(EDITED))
    odd = "locked screen jam"
    first = add(task, (odd, "printer"))
    texts, values = corrections(first.release)
    assert texts == [odd]
    place = live(task).labels.index("printer")
    assert values[0].argmax() == place
    np.testing.assert_allclose(values.astype(np.float32).sum(1), 0, atol=1e-2)
    items = Items.of(task)
    changed = relabel(task, 3, label="network")
    texts, values = corrections(changed.release)
    assert texts == [items.texts[3], odd]
    assert values[0].argmax() == live(task).labels.index("network")
    after = add_phones(task)
    texts, again = corrections(after.release)
    assert texts == [items.texts[3], odd, *PHONES]
    np.testing.assert_array_equal(again[:2], values)
    # A label that the student does not know says nothing of how the others stand.
    np.testing.assert_allclose(again[2:], 0, atol=0.06)
    taken_out = remove(task, wanted=Filter(keys=item_keys([odd], None)))
    assert corrections(taken_out.release)[0] == [items.texts[3], *PHONES]


def test_edits_of_a_release_from_before_there_were_corrections_count_too(task: Path) -> None:
    odd, other = "locked screen jam", "router toner page"
    add(task, (odd, "printer"))
    changed = relabel(task, 3, label="network")
    releases = ReleaseDirectory(task / "releases")
    directory = releases.path(str(changed.release))
    (directory / EDITED).unlink()
    written_anew(changed, task)
    made = add(task, (other, "login"))
    found = open_edited(
        releases.path(str(made.release)),
        load_bundle(directory.with_name(str(made.release)) / BUNDLE).manifest,
        live(task),
    ).corrections
    assert found is not None
    texts = Items.of(task).texts
    assert [texts[row] for row in found.items] == [texts[3], odd, other]


def test_an_explained_answer_tells_what_was_corrected(task: Path) -> None:
    odd = "locked screen jam"
    assert explained(task, odd)["predictions"][0]["corrections"] is None
    add(task, (odd, "printer"))
    (told,) = explained(task, odd)["predictions"]
    assert told["scores"][0]["label"] == "printer"
    assert list(told["corrections"]) == ["login", "printer", "network"]
    assert told["corrections"]["printer"] > 0.1
    assert abs(sum(told["corrections"].values())) < 0.01
    assert told["added_by_words"] is None


@pytest.mark.parametrize("text", ["handset abroad please", "locked screen jam", "login abroad"])
def test_scores_can_be_worked_out_from_what_an_explanation_tells(task: Path, text: str) -> None:
    add(task, ("locked screen jam", "printer"))
    written_anew(add_phones(task), task, balances=(0.7,))
    answer = explained(task, text)
    (told,) = answer["predictions"]
    labels = list(answer["label_weights"])
    assert labels == ["login", "printer", "network", "phone"]
    assert list(answer["label_weights"].values())[:3] == [1, 1, 1]
    assert answer["label_weights"]["phone"] > 1.5
    assert list(told["added_by_words"]) == ["phone"]
    assert told["neighbours"]

    def row(by_label: dict[str, float]) -> NDArray[np.float64]:
        return np.array([by_label.get(label, 0.0) for label in labels])

    store = sum(near["weight"] * row(near["labels"]) for near in told["neighbours"])
    store *= row(answer["label_weights"])
    store /= store.sum()
    np.testing.assert_allclose(store, row(told["store"]), atol=1e-3)
    known, share = slice(3), answer["lexical_share"]
    assert share == 0.5
    expected = store.copy()
    student = row(told["student"])[known] * store[known].sum()
    expected[known] = student + told["weight"] * (store[known] - student)
    expected += row(told["corrections"])
    added = (1 - share) * store[3] + share * told["added_by_words"]["phone"]
    expected[known] *= (1 - added) / expected[known].sum()
    expected[3] = added
    scores = {entry["label"]: entry["score"] for entry in told["scores"]}
    np.testing.assert_allclose(row(scores), expected, atol=1e-3)


def explained(task: Path, text: str) -> Any:
    with TestClient(create_app(StudentSettings(task_dir=task))) as client:
        return client.post("/predict", json={"inputs": text, "explain": True}).json()


def written_anew(made: Edited, task: Path, **fields: Any) -> None:
    """The release that an edit made, once more, with these fields in its manifest; live."""
    releases = ReleaseDirectory(task / "releases")
    directory = releases.path(str(made.release))
    told = {name: getattr(live(task), name) for name in (
        "task", "labels", "store_version", "encoder_fingerprint", "items", "metrics", "edits",
    )}  # fmt: skip
    again = write_release_manifest(directory, **told, **fields)
    directory.rename(releases.root / again.release)
    releases.activate(again.release)
