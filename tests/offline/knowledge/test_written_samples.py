"""Samples for an edit's labels: which are kept, what becomes of them, and what is told where none can be written."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from edited_task import PHONES, TEST_ROW, candidate, live
from numpy.typing import NDArray

from offline.knowledge.additions import NewItem
from offline.knowledge.drafts import Draft, draft_addition, draft_relabelling
from offline.knowledge.editable import EditableKnowledge, Relabeller
from offline.knowledge.editing import EditSettings, edit_knowledge
from offline.knowledge.items import Items, labelled_by_persons
from offline.knowledge.journal import JOURNAL, AddedItem, Edit, item_keys, loose_forms
from offline.knowledge.sample_sieve import Sieve, WrittenSamples
from offline.knowledge.sources import Sources, sources_of
from offline.knowledge.written_samples import written_samples
from offline.pipeline.progress import NO_DISPLAY
from offline.teacher.generation import SCHEMA
from offline.teacher.quality import QualityConfig
from services.platform.errors import InvalidData
from services.releases.manifest import KNOWLEDGE
from services.store.knowledge_file import read_knowledge

LABELS = ("printer", "phone")
KEPT = ("my handset rings all day long", "no dialling tone this morning")


class WordsLabeller:
    """Takes a text for a phone's where it speaks of one; an embedding a text, each apart from all others."""

    labels = LABELS
    identity = "words"

    def embed(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        return np.eye(64, dtype=np.float32)[10 : 10 + len(texts)]

    def soft_labels(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        embeddings: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        phone = ["handset" in text.lower() or "dialling" in text for text in texts]
        return np.array([[0.2, 0.8] if found else [0.9, 0.1] for found in phone], np.float32)


def sieved(texts: Sequence[str], begun: int) -> WrittenSamples:
    known = ["the handset of a known item rings"]
    sieve = Sieve(
        labeller=WordsLabeller(),  # type: ignore[arg-type]
        words=("printer", "phone"),
        texts=["my handset says nothing at all"],
        embeddings=np.eye(64, dtype=np.float32)[:1],
        keys=frozenset(item_keys(known, None)),
        held_out=frozenset(loose_forms(["A dialling tone, in the test split"], None)),
        quality=QualityConfig(other_label="drop", balance=2.0, max_length=9),
    )
    count = len(texts)
    columns = {
        "text": list(texts),
        "text_pair": [None] * count,
        "label": ["phone"] * count,
        "logprob": [0.0] * count,
    }
    written = pa.table(columns, SCHEMA)
    left_out = {"incomplete": begun - count - 1, "empty": 1}
    return sieve(written, left_out, ["phone"], "the generator", pair=False)


def test_what_is_known_or_takes_no_part_in_training_is_not_kept() -> None:
    found = sieved(
        [
            KEPT[0],
            "my handset says nothing at all",
            "the printer is out of paper again",
            "The Handset of a known item  rings",
            "a dialling tone in the test split",
            KEPT[1],
            KEPT[0].upper(),
        ],
        begun=9,
    )
    assert [item.text for item in found.items] == list(KEPT)
    assert found.figures == {
        "written": 9,
        "kept": {"phone": 2},
        "dropped": {
            "incomplete": 1,
            "empty": 1,
            "copy": 1,
            "other_label": 1,
            "duplicate": 1,
            "known": 2,
        },
    }
    first = found.items[0]
    assert (first.label, first.generator, first.labeller) == ("phone", "the generator", "words")
    assert first.probabilities == pytest.approx({"printer": 0.2, "phone": 0.8})


def test_nothing_complete_is_told_as_such() -> None:
    found = sieved([], begun=2)
    assert found.items == ()
    assert found.warnings == ("none of the samples written for 'phone' was fit to be kept",)
    assert found.figures == {
        "written": 2,
        "kept": {"phone": 0},
        "dropped": {"incomplete": 1, "empty": 1},
    }


def edited(task: Path) -> Edit:
    """An edit with a person's text and a generator's, both for a new label."""
    return Edit.now(
        live(task).edits,
        labeller="the run's",
        added=[
            *(AddedItem(text=text, label="phone", probabilities=None) for text in PHONES),
            AddedItem(
                text=KEPT[0],
                label="phone",
                probabilities={"printer": 0.25, "phone": 0.75},
                generator="the generator",
                labeller="refitted",
                nearest=0.5,
            ),
        ],
    )


def test_a_sample_s_soft_label_is_the_labeller_s_and_its_origin_is_told(task: Path) -> None:
    made = edit_knowledge(task, lambda *_: Draft(edited(task)), EditSettings())
    assert made.outcome == "activated", made.reasons
    items = Items.of(task)
    sample, by_person = items.described(len(items) - 1), items.described(len(items) - 2)
    assert (sample["origin"], sample["generator"]) == ("generated", "the generator")
    assert (sample["label"], sample["labeller"]) == ("phone", "refitted")
    assert sample["soft_label"]["phone"] == pytest.approx(0.75)
    assert sample["soft_label"]["printer"] == pytest.approx(0.25)
    assert sample["quality"] == pytest.approx(
        {"confidence": 0.75, "agreement": 0.75, "nearest": 0.5}
    )
    assert (by_person["origin"], by_person["generator"]) == ("manual", None)
    assert by_person["soft_label"]["phone"] == pytest.approx(0.9)
    # The gate judges the label by what people said of it.
    assert made.left_out == {"phone": {"rows": len(PHONES), "recall": 1.0}}
    assert labelled_by_persons(items.knowledge.table)[-2:] == [True, False]


def test_a_sample_that_a_person_relabels_is_a_person_s(task: Path) -> None:
    edit_knowledge(task, lambda *_: Draft(edited(task)), EditSettings())
    last = len(Items.of(task)) - 1

    def draft(items: Items, sources: Sources) -> Draft:
        return draft_relabelling(
            items, [last], "network", sources, new_labels=False, ask_labeller=False
        )

    made = edit_knowledge(task, draft, EditSettings(force=True))
    assert made.outcome == "activated", made.reasons
    items = Items.of(task)
    assert items.described(last)["label"] == "network"
    assert labelled_by_persons(items.knowledge.table)[-1]


def test_a_sample_does_not_displace_what_a_later_run_has(task: Path) -> None:
    knowledge = read_knowledge(candidate(task) / KNOWLEDGE)
    text = knowledge.table["text"][0].as_py()
    sample = AddedItem(text=text, label="phone", probabilities={"phone": 1.0}, generator="it")
    by_person = sample.model_copy(update={"generator": None})

    def label(item: AddedItem) -> str | None:
        editable = EditableKnowledge(
            knowledge,
            knowledge.metadata.labels,
            lambda texts, _: np.zeros((len(texts), knowledge.vectors.shape[1]), np.float32),
            None,
        )
        editable.apply(Edit.now([], added=[item]))
        table = editable.finished().table
        found: str | None = table["label"][table["text"].to_pylist().index(text)].as_py()
        return found

    assert label(sample) == knowledge.table["label"][0].as_py()
    assert label(by_person) == "phone"


def test_a_later_run_s_labeller_does_not_change_a_sample_s_soft_label(
    task: Path,
) -> None:
    edit = edited(task)
    knowledge = read_knowledge(candidate(task) / KNOWLEDGE)
    width = knowledge.vectors.shape[1]

    def encode(texts: Sequence[str], _: object) -> NDArray[np.float32]:
        return np.zeros((len(texts), width), np.float32)

    def asked(texts: Sequence[str], _: object) -> list[dict[str, float]]:
        return [{"network": 1.0} for _ in texts]

    editable = EditableKnowledge(
        knowledge, knowledge.metadata.labels, encode, Relabeller("another", asked)
    )
    editable.apply(edit)
    phone, network = editable.labels.index("phone"), editable.labels.index("network")
    assert editable.soft[-1, phone] == pytest.approx(0.75)
    assert editable.soft[-2, [phone, network]] == pytest.approx([0.9, 0.1])


def test_no_sample_without_the_run_s_generator_and_nothing_is_written(task: Path) -> None:
    before = live(task)
    new = [NewItem(f"row {n}", text, None, "phone") for n, text in enumerate(PHONES)]

    def draft(items: Items, sources: Sources) -> Draft:
        return draft_addition(
            items,
            new,
            sources,
            new_labels=True,
            skip_duplicates=False,
            ask_labeller=False,
            samples=8,
        )

    with pytest.raises(InvalidData, match="generator"):
        edit_knowledge(task, draft, EditSettings())
    assert live(task) == before
    assert not (task / JOURNAL).exists()


def test_a_text_without_a_label_is_refused(task: Path) -> None:
    items = Items.of(task)
    with pytest.raises(InvalidData, match="has no label"):
        written_samples(
            items, [NewItem("row 1", TEST_ROW, None, None)], sources_of(task, items.release), 8,
            seed=0, display=NO_DISPLAY,
        )  # fmt: skip
