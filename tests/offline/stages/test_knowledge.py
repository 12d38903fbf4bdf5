"""The stage `knowledge` on real sentences: what becomes an item, and what is measured of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offline.pipeline.manifest import hash_files
from offline.pipeline.stage import StageContext
from offline.stages import knowledge as stage
from offline.stages import labeller, prepare
from offline.store.knowledge import KnowledgeConfig
from offline.tasks.config import TaskConfig
from offline.teacher.generation import SCHEMA
from offline.teacher.labeller import LabellerConfig, load_labeller
from services.platform.errors import InvalidData
from services.store.knowledge_file import read_knowledge

TRAIN = {
    "weather": [
        "will it rain in the valley tomorrow",
        "how cold does it get at night up there",
        "is there a storm coming this weekend",
        "do I need an umbrella today",
        "what is the forecast for Sunday",
        "snow again, when does it stop",
    ],
    "music": [
        "play something slow by the same band",
        "who sings this song",
        "turn the volume down a little",
        "skip to the next track please",
        "I want to hear that new album",
        "put some jazz on in the kitchen",
    ],
}
TEST = {"weather": "how cold does it get at night", "music": "which song is this"}
UNLABELLED = ["is it windy at the coast", "shuffle my favourite songs"]
WRITTEN = [
    ("will there be fog in the morning", "weather"),
    ("do I need a warm coat this evening", "weather"),
    ("Will it rain in the valley, tomorrow?", "weather"),
    ("weather", "weather"),
    ("play the first song of that concert", "weather"),
    ("play the last album of this singer", "music"),
    ("play the last album of this singer!", "music"),
    ("is it windy at the coast", "weather"),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("stages")
    directories = {name: root / name for name in ("prepare", "labeller", "generate")}
    for directory in directories.values():
        directory.mkdir()
    lines = [
        json.dumps({"text": text, "label": label})
        for label, texts in TRAIN.items()
        for text in texts
    ]
    (root / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    test = "\n".join(json.dumps({"text": text, "label": label}) for label, text in TEST.items())
    (root / "test.jsonl").write_text(test, encoding="utf-8")
    unlabelled = "\n".join(json.dumps({"text": text}) for text in UNLABELLED)
    (root / "unlabelled.jsonl").write_text(unlabelled, encoding="utf-8")
    data = {name: f"{name}.jsonl" for name in ("train", "test", "unlabelled")}
    config = TaskConfig.model_validate(
        {"name": "home", "labels": list(TRAIN), "data": {"directory": root, **data}}
    )
    prepare.run({}, config, context(directories["prepare"]))
    labeller.run(
        directories,
        LabellerConfig(strengths=(10.0,)),
        context(directories["labeller"]),
    )
    write_samples(directories["generate"], WRITTEN)
    return directories


def context(directory: Path) -> StageContext:
    return StageContext(directory, 0, lambda *_: None)


def write_samples(directory: Path, samples: list[tuple[str, str]]) -> None:
    columns = [
        [text for text, _ in samples],
        [None] * len(samples),
        [label for _, label in samples],
        [-1.0] * len(samples),
    ]
    table = pa.table(dict(zip(SCHEMA.names, columns, strict=True)), SCHEMA)
    table = table.replace_schema_metadata(
        {"generator": "miniature-1", "incomplete": "3", "empty": "2"}
    )
    pq.write_table(table, directory / "samples.parquet")


def built(inputs: dict[str, Path], directory: Path, **config: Any) -> dict[str, Any]:
    return stage.run(inputs, KnowledgeConfig.model_validate(config), context(directory))


def test_items_are_kept_samples_then_training_rows_then_unlabelled_texts(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    figures = built(inputs, tmp_path)
    knowledge = read_knowledge(tmp_path / "knowledge.parquet")
    found = knowledge.table.to_pydict()
    assert found["origin"] == ["generated"] * 4 + ["train"] * 12 + ["unlabelled"] * 2
    assert found["text"][:4] == [WRITTEN[row][0] for row in (0, 1, 4, 5)]
    assert found["text"][-2:] == UNLABELLED
    assert found["generator"][0] == "miniature-1"
    assert figures["items"] == len(knowledge) == 18
    assert knowledge.metadata.labels == ("weather", "music")


def test_dropped_samples_are_counted_by_reason_and_label(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    built(inputs, tmp_path)
    dropped = json.loads((tmp_path / "dropped.json").read_text(encoding="utf-8"))
    assert dropped["written"] == 13
    assert dropped["kept"] == 4
    reasons = {"incomplete": 3, "empty": 2, "label_words": 1, "copy": 2, "duplicate": 1}
    assert dropped["reasons"] == reasons
    assert list(dropped["reasons"]) == list(reasons)
    assert dropped["by_label"] == {
        "weather": {"label_words": 1, "copy": 2},
        "music": {"duplicate": 1},
    }
    sheet = (tmp_path / "samples.md").read_text(encoding="utf-8")
    assert "`Will it rain in the valley, tomorrow?`" in sheet
    assert "13 were written, 5 of them without an end or a text; 4 are kept." in sheet


def test_a_sample_of_another_label_is_kept_with_what_the_labeller_says(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    figures = built(inputs, tmp_path)
    knowledge = read_knowledge(tmp_path / "knowledge.parquet")
    assert knowledge.table["label"][2].as_py() == "weather"
    assert knowledge.soft_labels[2].argmax() == 1
    assert figures["label_agreement_labeller"] == 0.75
    strict = tmp_path / "strict"
    strict.mkdir()
    built(inputs, strict, quality={"other_label": "drop"})
    kept = read_knowledge(strict / "knowledge.parquet").table["text"].to_pylist()
    assert WRITTEN[4][0] not in kept


def test_soft_labels_of_training_rows_follow_gold_and_labeller(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    built(inputs, tmp_path)
    knowledge = read_knowledge(tmp_path / "knowledge.parquet")
    own = knowledge.soft_labels[4:16]
    gold = np.array([0] * 6 + [1] * 6)
    assert own[np.arange(12), gold].mean() > 0.85
    assert len(np.unique(own.round(4), axis=0)) > 2
    assert own.max() < 0.9999


def test_embeddings_lie_beside_the_items_in_their_order(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    built(inputs, tmp_path)
    texts = read_knowledge(tmp_path / "knowledge.parquet").table["text"].to_pylist()
    embeddings = np.load(tmp_path / "embeddings.npy", allow_pickle=False)
    expected = load_labeller(inputs["labeller"]).embed(texts)
    assert embeddings.dtype == np.float16
    assert np.allclose(embeddings, expected, atol=2e-3)


def test_figures_tell_what_was_kept_and_what_was_written(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    figures = built(inputs, tmp_path)
    assert json.loads((tmp_path / "figures.json").read_text(encoding="utf-8")) == figures
    assert figures["written_copies"] == 1 / 8
    assert figures["written_distinct"] == 7 / 8
    assert figures["written_copies_unlabelled"] == 1 / 8
    assert figures["copies"] == figures["copies_unlabelled"] == 0
    assert figures["distinct"] == 1
    assert 0 < figures["self_bleu"] < 1
    assert {"label_agreement", "written_label_agreement", "confidence"} <= figures.keys()


def test_the_stage_writes_the_same_bytes_again(inputs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        built(inputs, tmp_path / name)
    assert hash_files(tmp_path / "first") == hash_files(tmp_path / "second")


def test_knowledge_without_any_item_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    generate = tmp_path / "generate"
    generate.mkdir()
    write_samples(generate, [("weather", "weather")])
    with pytest.raises(
        InvalidData,
        match=r"None of the 6 generated samples .*'incomplete': 3, 'empty': 2, 'label_words': 1",
    ):
        built({**inputs, "generate": generate}, tmp_path, train=False, unlabelled=False)
    assert not (tmp_path / "knowledge.parquet").exists()


def test_a_generator_that_wrote_nothing_leaves_the_training_rows(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    generate = tmp_path / "generate"
    generate.mkdir()
    write_samples(generate, [])
    figures = built({**inputs, "generate": generate}, tmp_path)
    assert figures["items"] == 14
    assert figures["written"] == 0


def test_generated_samples_can_be_left_out(inputs: dict[str, Path], tmp_path: Path) -> None:
    figures = built(inputs, tmp_path, generated=False)
    origins = read_knowledge(tmp_path / "knowledge.parquet").table["origin"].to_pylist()
    assert origins == ["train"] * 12 + ["unlabelled"] * 2
    assert figures["written"] == 0
