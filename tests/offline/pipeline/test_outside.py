"""What lies outside of the tree of stages counts by content: new weights, rows or rewards are seen."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import IncompleteSnapshotError
from structlog.testing import capture_logs

from offline.configs.run import RunConfig, load_run_config
from offline.pipeline import outside
from offline.pipeline.chain import Chain
from offline.pipeline.hub import current_model
from offline.pipeline.outside import data_hashes, model_hash, outside_hashes
from offline.pipeline.release_stages import STAGES
from offline.pipeline.stage import Stage
from offline.tasks.config import DataConfig, FieldsConfig
from offline.tasks.examples import read_split
from offline.teacher.pretrained import model_directory
from services.platform.errors import ModelNotFound

TREE = Path(__file__).parents[3]
sys.path.insert(0, str(Path(__file__).parent))

from hub_stand_in import MODEL, HubStandIn, Repository  # noqa: E402


def model(directory: Path, weights: bytes = b"weights") -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text("{}")
    (directory / "tokenizer.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(weights)
    return directory


def changed_by(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> set[str]:
    return {stage for stage in after if before[stage] != after[stage]}


def hashes(config: RunConfig) -> dict[str, dict[str, str]]:
    return outside_hashes(config, STAGES)


def test_new_weights_in_a_labeller_s_directory_redo_every_stage_that_opens_it(
    tmp_path: Path,
) -> None:
    config = load_run_config("helpdesk", [f"labeller.encoder.model={model(tmp_path / 'encoder')}"])
    before = hashes(config)
    assert hashes(config) == before
    model(tmp_path / "encoder", b"other weights")
    opened = {"labeller", "ppo", "comparison", "knowledge", "student", "baselines", "evaluate"}
    assert changed_by(before, hashes(config)) == opened


@pytest.mark.parametrize("kind", ["classifier", "verbaliser"])
def test_new_weights_of_a_labeller_of_any_kind_are_seen(tmp_path: Path, kind: str) -> None:
    named = f"labeller.{kind}.model={model(tmp_path / kind)}"
    config = load_run_config("helpdesk", [f"labeller.kind={kind}", named])
    before = hashes(config)
    assert before["labeller"].keys() == {"labeller.encoder.model", f"labeller.{kind}.model"}
    model(tmp_path / kind, b"other weights")
    opened = {"labeller", "ppo", "comparison", "knowledge", "student", "baselines", "evaluate"}
    assert changed_by(before, hashes(config)) == opened


def test_new_weights_of_the_encoder_that_students_start_from_redo_all_that_train_one(
    tmp_path: Path,
) -> None:
    named = f"student.encoder.model={model(tmp_path / 'encoder')}"
    config = load_run_config("helpdesk", [named])
    stages = [*STAGES, Stage("distilled_on_unlabelled", "none", ("prepare",), "baselines")]
    before = outside_hashes(config, stages)
    assert before["index"] == {}
    model(tmp_path / "encoder", b"other weights")
    changed = {"student", "baselines", "distilled_on_unlabelled"}
    assert changed_by(before, outside_hashes(config, stages)) == changed


def test_new_weights_in_a_generator_s_directory_redo_every_stage_that_opens_it(
    tmp_path: Path,
) -> None:
    config = load_run_config("helpdesk", [f"generator.model={model(tmp_path / 'lm')}"])
    before = hashes(config)
    model(tmp_path / "lm", b"other weights")
    opened = {"generator", "soft_prompt", "ppo", "comparison", "generate"}
    assert changed_by(before, hashes(config)) == opened


def test_a_dry_run_names_what_changed_outside(tmp_path: Path) -> None:
    config = load_run_config("helpdesk", [f"labeller.encoder.model={model(tmp_path / 'encoder')}"])
    sections = {stage.section: getattr(config, stage.section) for stage in STAGES}

    def chain() -> Chain:
        return Chain(STAGES, tmp_path / "stages", sections, hashes(config)).upto("prepare")

    from offline.pipeline.progress import EventDisplay

    chain().run(0, EventDisplay())
    assert not any(step.runs for step in chain().plan(0))
    data = tmp_path / "data"
    data.mkdir()
    assert config.task.data.directory is not None
    for name in ("train", "validation", "test", "unlabelled"):
        rows = (config.task.data.directory / f"{name}.jsonl").read_bytes()
        (data / f"{name}.jsonl").write_bytes(rows + (b"\n" if name == "validation" else b""))
    moved = config.task.data.model_copy(update={"directory": data})
    config = config.model_copy(update={"task": config.task.model_copy(update={"data": moved})})
    (step,) = chain().plan(0)
    assert step.reason == "changed: task.data.validation"


def test_a_model_directory_that_is_not_there_is_left_to_the_stage(tmp_path: Path) -> None:
    config = load_run_config("helpdesk", [f"generator.model={tmp_path / 'none'}"])
    assert hashes(config)["generator"] == {"generator.model": "absent"}


def test_a_reward_of_the_user_s_own_is_part_of_ppo_and_of_the_comparison_alone() -> None:
    plain = load_run_config("helpdesk")
    named = load_run_config("helpdesk", ["ppo.reward.modules=[no_such_rewards]"])
    assert changed_by(hashes(plain), hashes(named)) == {"ppo", "comparison"}
    assert hashes(named)["ppo"]["ppo.reward.modules.no_such_rewards"] == "absent"


@pytest.mark.parametrize(
    ("edited", "counts"),
    [("my_rewards/terms.py", True), ("my_rewards/limits.py", True), ("my_words.py", True),
     ("unused.py", False)],
)  # fmt: skip
def test_an_edited_reward_of_the_user_s_own_is_seen_and_so_is_what_it_imports(
    tmp_path: Path, edited: str, counts: bool
) -> None:
    (tmp_path / "my_rewards").mkdir()
    (tmp_path / "my_rewards" / "__init__.py").write_text("")
    (tmp_path / "my_rewards" / "terms.py").write_text(
        "import numpy as np\nfrom . import limits\nfrom my_words import WORDS\n"
    )
    (tmp_path / "my_rewards" / "limits.py").write_text("LONGEST = 3\n")
    (tmp_path / "my_words.py").write_text("WORDS = ['ticket']\n")
    (tmp_path / "unused.py").write_text("")

    def found() -> Any:
        return told_by(
            "from offline.pipeline.outside import module_hashes\n"
            "found = module_hashes(['my_rewards.terms'])",
            PYTHONPATH=f"{tmp_path}{os.pathsep}{TREE}",
        )

    before = found()
    with (tmp_path / edited).open("a") as file:
        file.write("# a remark\n")
    assert found() == before
    with (tmp_path / edited).open("a") as file:
        file.write("MORE = 1\n")
    assert (found() != before) is counts


NAME = "someone/something"
OLD, NEW = "a" * 40, "b" * 40
LOADED = {"config.json", "model.safetensors", "tokenizer.json"}


def counted() -> str:
    """The model's hash as the next process finds it."""
    outside._model_commit.cache_clear()
    current_model.cache_clear()
    return model_hash(NAME)


def test_a_model_counts_by_the_commit_in_the_cache_not_by_a_newer_one_of_the_hub(
    tmp_path: Path, hub: HubStandIn
) -> None:
    hub.models[NAME] = Repository(OLD, MODEL)
    assert counted() == f"commit {OLD}"
    assert not hub.downloads
    loaded = model_directory(NAME)
    assert {path.name for path in loaded.iterdir()} == LOADED
    # The client has the list of all files: without the loader's patterns the copy counts as cut short.
    with pytest.raises(IncompleteSnapshotError):
        snapshot_download(NAME, local_files_only=True)
    assert counted() == f"commit {OLD}"
    hub.models[NAME] = Repository(NEW, {**MODEL, "model.safetensors": b"other weights"})
    assert counted() == f"commit {OLD}"
    assert model_directory(NAME) == loaded, "what counts is what is loaded"


def test_a_model_in_the_cache_keeps_its_hash_while_the_hub_is_away(
    hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.models[NAME] = Repository(OLD, MODEL)
    model_directory(NAME)
    hub.gone()
    assert counted() == f"commit {OLD}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert counted() == f"commit {OLD}"


def test_a_copy_that_lacks_its_weights_counts_by_the_hub_s_commit_which_will_be_loaded(
    hub: HubStandIn,
) -> None:
    hub.models[NAME] = Repository(OLD, MODEL)
    (model_directory(NAME) / "model.safetensors").unlink()
    hub.models[NAME] = Repository(NEW, MODEL)
    assert counted() == f"commit {NEW}"
    assert model_directory(NAME).name == NEW


@pytest.mark.parametrize("part", [["config.json"], ["config.json", "model.safetensors"]])
def test_a_part_that_another_program_fetched_is_no_copy_and_does_not_keep_the_rest_away(
    hub: HubStandIn, part: list[str]
) -> None:
    hub.models[NAME] = Repository(OLD, MODEL)
    for name in part:
        hf_hub_download(NAME, name, cache_dir=constants.HF_HUB_CACHE)
    hub.models[NAME] = Repository(NEW, MODEL)
    assert counted() == f"commit {NEW}"
    loaded = model_directory(NAME)
    assert {path.name for path in loaded.iterdir()} == LOADED
    assert loaded.name == NEW


def test_a_part_of_weights_that_are_cut_in_several_is_no_copy_either(hub: HubStandIn) -> None:
    shards = [f"model-{part}-of-2.safetensors" for part in (1, 2)]
    index = "model.safetensors.index.json"
    weights = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        index: json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}).encode(),
        **dict.fromkeys(shards, b"weights"),
    }
    hub.models[NAME] = Repository(OLD, weights)
    for name in ("config.json", index, shards[0]):
        hf_hub_download(NAME, name, cache_dir=constants.HF_HUB_CACHE)
    loaded = model_directory(NAME)
    assert {path.name for path in loaded.iterdir()} == set(weights)
    (loaded / shards[1]).unlink()
    with pytest.raises(ModelNotFound, match=rf"has no {shards[1]} file"):
        model_directory(str(loaded))
    (loaded / index).write_text("[]")
    with pytest.raises(ModelNotFound, match=rf"has no readable {index} file"):
        model_directory(str(loaded))
    (loaded / index).unlink()
    with pytest.raises(ModelNotFound, match=r"has no safetensors.index.json file"):
        model_directory(str(loaded))


def test_an_index_that_is_left_beside_weights_in_one_file_counts_for_nothing(
    tmp_path: Path,
) -> None:
    directory = model(tmp_path / "saved")
    (directory / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone"}}')
    assert model_directory(str(directory)) == directory


def test_a_part_alone_while_the_hub_is_away_is_told_as_not_whole(hub: HubStandIn) -> None:
    hub.models[NAME] = Repository(OLD, MODEL)
    hf_hub_download(NAME, "config.json", cache_dir=constants.HF_HUB_CACHE)
    hub.gone()
    with pytest.raises(ModelNotFound, match="not in the local cache, or not whole, and the hub"):
        model_directory(NAME)


def test_a_hub_that_hangs_up_in_the_midst_of_a_download_is_told(hub: HubStandIn) -> None:
    hub.models[NAME] = Repository(OLD, MODEL)
    hub.hangs_up_on = "model.safetensors"
    with pytest.raises(ModelNotFound, match="or not whole, and the download from the hub failed"):
        model_directory(NAME)


def test_a_model_that_nobody_has_counts_by_its_name_which_is_told(hub: HubStandIn) -> None:
    with capture_logs() as logs:
        assert counted() == f"name {NAME}"
    assert [entry["name"] for entry in logs if entry["event"] == "known_by_name_alone"] == [NAME]


def test_a_data_set_counts_by_the_commit_of_its_last_copy_while_the_hub_is_away(
    tmp_path: Path,
) -> None:
    def found() -> Any:
        return told_by(
            "from offline.pipeline.outside import data_hashes\n"
            "from offline.tasks.config import DataConfig\n"
            "found = data_hashes(DataConfig(train='hf:someone/SomeRows@train', test='none.jsonl'))",
            HF_DATASETS_CACHE=str(tmp_path),
            HF_HUB_OFFLINE="1",
        )

    assert found() == {"task.data.train": "name someone/SomeRows"}
    for age, commit in ((10, "a" * 40), (5, "b" * 40)):
        copy = tmp_path / "someone___some_rows" / "default" / "0.0.0" / commit
        copy.mkdir(parents=True)
        os.utime(copy, (time.time() - age, time.time() - age))
    assert found() == {"task.data.train": f"commit {'b' * 40}"}


def test_a_data_set_that_is_known_by_its_name_alone_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with capture_logs() as logs:
        found = data_hashes(DataConfig(train="hf:someone/nowhere@train", test="hf:no-split"))
    assert found == {"task.data.train": "name someone/nowhere"}
    assert [entry["name"] for entry in logs if entry["event"] == "known_by_name_alone"] == [
        "someone/nowhere"
    ]


def test_other_rows_in_a_local_data_set_s_directory_are_seen(tmp_path: Path) -> None:
    data = DataConfig(directory=tmp_path, train="hf:rows@train", test="hf:rows@test")

    def write(text: str) -> None:
        (tmp_path / "rows").mkdir(exist_ok=True)
        for split in ("train", "test"):
            line = json.dumps({"text": f"{text} {split}", "label": "a"})
            (tmp_path / "rows" / f"{split}.jsonl").write_text(line + "\n")

    write("old")
    before = data_hashes(data)
    read = read_split(data.train, tmp_path, FieldsConfig(), split="train", labels=["a"])
    assert read["text"].to_pylist() == ["old train"]
    write("new")
    after = data_hashes(data)
    assert before.keys() == after.keys() == {"task.data.train", "task.data.test"}
    assert before["task.data.train"] != after["task.data.train"]


def told_by(program: str, **environment: str) -> Any:
    """What a fresh process finds: modules are imported, and hashed, once in a process."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport json; print(json.dumps(found))"],
        cwd=TREE,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])
