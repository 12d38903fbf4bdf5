"""The stages `student` and `baselines` on real sentences: what they write, and what they must not do."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

import offline.tasks
from offline.pipeline.manifest import hash_files
from offline.pipeline.stage import StageContext
from offline.report.metrics import accuracy
from offline.stages import baselines, labeller, prepare, student
from offline.student import build
from offline.student.baselines import BaselinesConfig, load_baselines
from offline.student.config import StudentConfig
from offline.student.items import TrainingItems
from offline.tasks.config import TaskConfig
from offline.tasks.prepared import PreparedTask
from offline.teacher.encoder import EncoderConfig
from offline.teacher.labeller import LabellerConfig, load_labeller
from offline.teacher.pretrained import PACKAGED
from services.platform.errors import CorruptArtifact, InvalidConfig
from services.store.knowledge_file import (
    Knowledge,
    KnowledgeMetadata,
    fixed_lists,
    read_knowledge,
    write_knowledge,
)
from services.student.bundle import load_bundle
from services.student.encoder import OnnxEncoder

LABELS = ("printer_problem", "phishing_report", "vpn_connection", "file_recovery")
HELPDESK = Path(offline.tasks.__file__).parent / "helpdesk"
SHOTS = 12
TINY: dict[str, Any] = {
    "shape": {
        "vocabulary": 900,
        "coded": 300,
        "codes": 4,
        "embedding": 24,
        "hidden": 32,
        "layers": 1,
        "heads": 2,
        "feed_forward": 48,
        "query": 24,
        "max_tokens": 48,
    },
    "training": {"steps": 120, "batch_size": 32, "warm_up": 10, "learning_rate": 4e-3},
    "retrieval": {"candidates": 64},
    "mixing": {"k": [4, 8]},
}
CONFIG = StudentConfig.model_validate(TINY)
FROM_ENCODER = StudentConfig.model_validate(
    {
        **TINY,
        "encoder": {"model": PACKAGED, "layers": 1},
        "shape": {"query": 24, "max_tokens": 48},
        "training": {**TINY["training"], "steps": 40},
        "max_share": 0.15,
    }
)
BASELINES = BaselinesConfig(student=CONFIG, fine_tuned_steps=60, distilled_steps=60)


def sentences(split: str) -> list[dict[str, str]]:
    lines = (HELPDESK / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["label"] in LABELS]


def context(directory: Path, seed: int = 0) -> StageContext:
    directory.mkdir(exist_ok=True)
    return StageContext(directory, seed, lambda *_: None)


def finished(root: Path, *, validation: bool) -> dict[str, Path]:
    """Directories of `prepare`, `labeller` and `knowledge`; left-over rows stand for samples."""
    directories = {name: root / name for name in ("prepare", "labeller", "knowledge")}
    rest: dict[str, list[str]] = defaultdict(list)
    train = []
    for row in sentences("train"):
        rest[row["label"]].append(row["text"])
        if len(rest[row["label"]]) <= SHOTS:
            train.append(row)
    held_out = sentences("validation")
    data = {"train": "train.jsonl", "test": "test.jsonl"}
    files = {"train": train, "test": held_out[::2]}
    if validation:
        data["validation"] = "validation.jsonl"
        files["validation"] = held_out[1::2]
    for name, rows in files.items():
        lines = "\n".join(map(json.dumps, rows))
        (root / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    config = TaskConfig.model_validate(
        {"name": "helpdesk", "labels": list(LABELS), "data": {"directory": root, **data}}
    )
    prepare.run({}, config, context(directories["prepare"]))
    labeller.run(
        directories,
        LabellerConfig(encoder=EncoderConfig(), strengths=(10.0,)),
        context(directories["labeller"]),
    )
    directories["knowledge"].mkdir()
    generated = [(text, label) for label in LABELS for text in rest[label][SHOTS:]]
    labelled = [(row["text"], row["label"]) for row in train]
    write_items(directories, generated, labelled)
    return directories


def write_items(
    directories: dict[str, Path],
    generated: list[tuple[str, str]],
    labelled: list[tuple[str, str]],
) -> None:
    teacher = load_labeller(directories["labeller"])
    rows = [*generated, *labelled]
    embeddings = teacher.embed([text for text, _ in rows])
    table = pa.table(
        {
            "id": pa.array(range(len(rows)), pa.int64()),
            "text": [text for text, _ in rows],
            "label": [label for _, label in rows],
            "soft_label": fixed_lists(teacher.soft_labels([text for text, _ in rows])),
            "origin": ["generated"] * len(generated) + ["train"] * len(labelled),
        }
    )
    metadata = KnowledgeMetadata(task="helpdesk", labels=LABELS, pair=False)
    write_knowledge(directories["knowledge"] / "knowledge.parquet", Knowledge(metadata, table))
    np.save(directories["knowledge"] / "embeddings.npy", embeddings.astype(np.float16))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return finished(tmp_path_factory.mktemp("stages"), validation=False)


@pytest.fixture(scope="module")
def trained(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("student")
    return directory, student.run(inputs, CONFIG, context(directory))


def test_a_student_in_int8_is_the_same_student_rounded(
    inputs: dict[str, Path], trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"precision": "int8"})
    student.run(inputs, config, context(tmp_path / "int8"))
    exact, rounded = (
        load_bundle(directory / "bundle") for directory in (trained[0], tmp_path / "int8")
    )
    assert exact.manifest.encoder_fingerprint != rounded.manifest.encoder_fingerprint
    assert exact.manifest.parameters == rounded.manifest.parameters
    texts = [row["text"] for row in sentences("validation")]
    (logits, queries), (new_logits, new_queries) = (
        OnnxEncoder.of_bundle(bundle).encode(texts) for bundle in (exact, rounded)
    )
    assert (logits.argmax(1) == new_logits.argmax(1)).mean() > 0.95
    assert (queries * new_queries).sum(1).min() > 0.99
    told = rounded.manifest.trained_with["int8_beside_fp32"]
    assert told["same_label"] > 0.95
    card = (rounded.directory / "README.md").read_text(encoding="utf-8")
    assert f"the same label for {told['same_label']:.1%}" in card
    assert "| precision | fp32 |" in (exact.directory / "README.md").read_text(encoding="utf-8")


def test_the_bundle_serves_what_the_student_learned(
    inputs: dict[str, Path], trained: tuple[Path, dict[str, Any]]
) -> None:
    directory, metrics = trained
    bundle = load_bundle(directory / "bundle")
    knowledge = read_knowledge(inputs["knowledge"] / "knowledge.parquet")
    logits, queries = OnnxEncoder.of_bundle(bundle).encode(knowledge.table["text"].to_pylist())
    assert accuracy(logits, knowledge.soft_labels.argmax(1)) > 0.8
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    assert bundle.manifest.labels == LABELS
    assert bundle.manifest.label_names == tuple(label.replace("_", " ") for label in LABELS)
    assert bundle.manifest.parameters == metrics["parameters"]
    limit = 0.02 * load_labeller(inputs["labeller"]).parameters
    assert bundle.manifest.parameters <= limit
    assert bundle.manifest.distance_threshold == metrics["distance_threshold"] > 0


def test_losses_fall_and_are_logged(trained: tuple[Path, dict[str, Any]]) -> None:
    directory, _ = trained
    log = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == CONFIG.training.steps
    for part in ("label", "embedding", "answer", "loss"):
        assert log[-1][part] < log[0][part], part


def test_the_model_card_tells_figures_of_the_training(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    directory, metrics = trained
    card = (directory / "bundle" / "README.md").read_text(encoding="utf-8")
    assert f"{metrics['parameters']:,}" in card
    assert "printer problem" in card
    assert load_bundle(directory / "bundle").manifest.encoder_fingerprint in card


def test_without_a_validation_split_the_mixing_is_not_fitted_and_all_items_are_trained_on(
    inputs: dict[str, Path], trained: tuple[Path, dict[str, Any]]
) -> None:
    directory, metrics = trained
    items = len(read_knowledge(inputs["knowledge"] / "knowledge.parquet"))
    assert metrics["items"] == items
    assert metrics["gate"] == "share"
    assert "nll" not in metrics
    card = (directory / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "too few validation rows to fit it on" in card


def test_a_validation_split_is_fitted_on(tmp_path: Path) -> None:
    directories = finished(tmp_path, validation=True)
    metrics = student.run(directories, CONFIG, context(tmp_path / "student"))
    manifest = load_bundle(tmp_path / "student" / "bundle").manifest
    validation = len(PreparedTask.load(directories["prepare"]).examples("validation"))
    assert manifest.trained_with["mixing_fitted_on"] == validation
    assert metrics["items"] == len(read_knowledge(directories["knowledge"] / "knowledge.parquet"))


def test_the_same_inputs_give_the_same_bytes(
    inputs: dict[str, Path], trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    first, _ = trained
    student.run(inputs, CONFIG, context(tmp_path / "again"))
    assert hash_files(tmp_path / "again") == hash_files(first)


def test_a_student_from_an_encoder_is_trained_exported_and_told_of(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    metrics = student.run(inputs, FROM_ENCODER, context(tmp_path / "student"))
    bundle = load_bundle(tmp_path / "student" / "bundle")
    knowledge = read_knowledge(inputs["knowledge"] / "knowledge.parquet")
    logits, queries = OnnxEncoder.of_bundle(bundle).encode(knowledge.table["text"].to_pylist())
    assert accuracy(logits, knowledge.soft_labels.argmax(1)) > 0.8
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    assert bundle.manifest.parameters == metrics["parameters"]
    assert metrics["share"] <= FROM_ENCODER.max_share
    card = (tmp_path / "student" / "bundle" / "README.md").read_text(encoding="utf-8")
    assert f"| began from | {PACKAGED}, the first 1 of its 6 layers" in card


def test_the_baselines_begin_from_the_same_encoder(inputs: dict[str, Path], tmp_path: Path) -> None:
    config = BaselinesConfig(student=FROM_ENCODER, fine_tuned_steps=2)
    baselines.run(inputs, config, context(tmp_path / "baselines"), networks=("fine_tuned",))
    told = load_bundle(tmp_path / "baselines" / "fine_tuned").manifest.trained_with["encoder"]
    assert (told["model"], told["layers"], told["of_layers"]) == (PACKAGED, 1, 6)


def test_sizes_of_a_student_from_scratch_are_refused_beside_an_encoder() -> None:
    start = {"encoder": {"model": PACKAGED}}
    with pytest.raises(ValidationError, match=r"shape\.hidden, shape\.layers cannot be set"):
        StudentConfig.model_validate({**start, "shape": {"hidden": 64, "layers": 2, "query": 32}})
    printed = StudentConfig.model_validate(start).model_dump()
    assert StudentConfig.model_validate(printed).encoder is not None


def test_a_limit_too_low_for_the_layers_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"max_parameters": 5_000})
    with pytest.raises(InvalidConfig, match=r"raise the lower of student\.max_parameters"):
        student.run(inputs, config, context(tmp_path / "student"))


def test_few_validation_rows_are_none_to_the_mixing_and_to_the_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def threshold(_: OnnxEncoder, store: object, rows: TrainingItems, k: int) -> float:
        asked.append(len(rows))
        return 0.5

    monkeypatch.setattr(build, "fit_distance_threshold", threshold)
    directories = finished(tmp_path, validation=True)
    rows = len(PreparedTask.load(directories["prepare"]).examples("validation"))
    assert rows >= 2 * len(LABELS)
    training = {"steps": 2, "batch_size": 32}
    mixing = {**TINY["mixing"], "folds": rows + 1}
    config = StudentConfig.model_validate({**TINY, "training": training, "mixing": mixing})
    metrics = student.run(directories, config, context(tmp_path / "student"))
    manifest = load_bundle(tmp_path / "student" / "bundle").manifest
    # The store has its fixed share, and the distance is of the rows all the same.
    assert metrics["gate"] == "share"
    assert manifest.mixing.gate_bias == pytest.approx(np.log(0.2 / 0.8), abs=1e-5)
    assert asked == [rows]
    two = BaselinesConfig(student=config, fine_tuned_steps=2, distilled_steps=2)
    told = baselines.run(directories, two, context(tmp_path / "baselines"))
    assert "distilled_parameters" in told
    assert "distilled_nll" not in told


def test_a_low_limit_costs_tokens_first(inputs: dict[str, Path], tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"max_parameters": 27_000})
    metrics = student.run(inputs, config, context(tmp_path / "student"))
    assert 26_900 < metrics["parameters"] <= 27_000
    assert metrics["own_tokens"] < CONFIG.shape.vocabulary
    assert metrics["tokens"] == metrics["own_tokens"] + CONFIG.shape.coded


def test_embeddings_of_other_items_are_refused(tmp_path: Path, inputs: dict[str, Path]) -> None:
    knowledge = tmp_path / "knowledge"
    knowledge.mkdir()
    (knowledge / "knowledge.parquet").symlink_to(inputs["knowledge"] / "knowledge.parquet")
    np.save(knowledge / "embeddings.npy", np.zeros((3, 384), dtype=np.float16))
    with pytest.raises(CorruptArtifact, match="holds"):
        student.run({**inputs, "knowledge": knowledge}, CONFIG, context(tmp_path / "student"))


def test_every_baseline_answers_after_loading(inputs: dict[str, Path], tmp_path: Path) -> None:
    directory = tmp_path / "baselines"
    metrics = baselines.run(inputs, BASELINES, context(directory))
    rows = sentences("validation")
    gold = np.array([LABELS.index(row["label"]) for row in rows])
    found = load_baselines(directory)
    assert set(found) == {"fine_tuned", "distilled", "distilled_on_knowledge", "tfidf"}
    for name, system in found.items():
        probabilities = system.probabilities([row["text"] for row in rows])
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        assert accuracy(probabilities, gold) > 0.3, name
        assert system.parameters == metrics[f"{name}_parameters"]
    for name in ("fine_tuned", "distilled", "distilled_on_knowledge"):
        manifest = load_bundle(directory / name).manifest
        assert manifest.trained_with["store_items"] == 0
        assert manifest.trained_with["retrieval"] is None
