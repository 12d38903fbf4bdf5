"""The command says clearly what is wrong, with the error's own exit status, and starts without torch."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from offline.cli import _spread
from offline.configs.run import load_run_config


def retrikt(*arguments: str, where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "offline", *arguments],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", "--seeds", "0", "1", "2"], ["a", "--seeds", "0", "--seeds", "1", "--seeds", "2"]),
        (["--seeds", "0", "--output", "x"], ["--seeds", "0", "--output", "x"]),
        (["--seeds", "0", "1", "x"], ["--seeds", "0", "--seeds", "1", "x"]),
        (["--seeds"], ["--seeds"]),
        (["run", "1"], ["run", "1"]),
    ],
)
def test_several_seeds_follow_one_option(given: list[str], expected: list[str]) -> None:
    assert _spread(given, "--seeds") == expected


def test_help_names_every_command_and_needs_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys, runpy\n"
        "for name in ('torch', 'transformers', 'sklearn'): sys.modules[name] = None\n"
        "sys.argv = ['retrikt', '--help']\n"
        "runpy.run_module('offline')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for command in ("run", "evaluate", "quickstart", "serve", "store", "release"):
        assert command in done.stdout


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = retrikt("run", "nothing", where=tmp_path)
    assert done.returncode == 2
    assert "There is no configuration 'nothing'" in done.stderr
    assert "helpdesk" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_value_is_told_with_its_line_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(
        "task:\n  name: toy\n  labels: [a, b]\n  data: {train: t.jsonl, test: t.jsonl}\nppo:\n  stepz: 3\n"
    )
    done = retrikt("run", "task.yaml", where=tmp_path)
    assert done.returncode == 2
    assert "task.yaml:6: unknown key 'ppo.stepz'. Did you mean 'steps'?" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["task.yaml"]


def test_a_plan_for_data_that_are_not_there_is_refused(tmp_path: Path) -> None:
    told = retrikt(
        "run", "banking77", "--dry-run", "--set", f"task.data.directory={tmp_path}", where=tmp_path
    )
    assert told.returncode == 2
    assert "train.jsonl does not exist" in told.stderr
    assert "--set task.data.directory=DIR" in told.stderr


def test_an_encoder_for_the_student_that_is_not_there_is_told_before_anything_runs(
    tmp_path: Path,
) -> None:
    told = retrikt("run", "helpdesk", "--set", "student.encoder.model=./nowhere", where=tmp_path)
    assert told.returncode == 3
    assert "nowhere" in told.stderr
    assert "Traceback" not in told.stderr
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_weight_of_no_term_is_told_with_its_line_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "task.yaml").write_text(
        "task:\n  name: toy\n  labels: [a, b]\n  data: {train: rows.jsonl, test: rows.jsonl}\n"
        "ppo:\n  reward:\n    weights: {acuracy: 1.0}\n"
    )
    told = retrikt("run", "task.yaml", "--dry-run", where=tmp_path)
    assert told.returncode == 2
    assert "task.yaml:7: unknown key 'ppo.reward.weights.acuracy'" in told.stderr
    assert "Did you mean 'accuracy'?" in told.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "task.yaml"}


def test_a_configuration_is_told_with_its_defaults_and_can_be_run(tmp_path: Path) -> None:
    told = retrikt("config", "helpdesk", "--set", "ppo.steps=7", where=tmp_path)
    assert told.returncode == 0, told.stderr
    (tmp_path / "told.yaml").write_text(told.stdout)
    again = load_run_config(str(tmp_path / "told.yaml"), [])
    assert again == load_run_config("helpdesk", ["ppo.steps=7"])
    assert yaml.safe_load(told.stdout)["student"]["training"]["steps"] == 1000


def test_a_configuration_is_told_with_the_place_of_its_store(tmp_path: Path) -> None:
    changed = ["store.backend=server", "store.url=http://qdrant:6333", "store.layout.replicas=2"]
    options = [part for change in changed for part in ("--set", change)]
    told = retrikt("config", "helpdesk", *options, where=tmp_path)
    assert told.returncode == 0, told.stderr
    (tmp_path / "told.yaml").write_text(told.stdout)
    store = load_run_config(str(tmp_path / "told.yaml"), []).store
    assert (store.backend, store.url, store.layout.replicas) == ("server", "http://qdrant:6333", 2)


def test_the_version_is_told(tmp_path: Path) -> None:
    assert retrikt("--version", where=tmp_path).stdout.startswith("retrikt 0.")


def test_a_missing_data_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(
        "task:\n  name: toy\n  labels: [a, b]\n  data: {train: a.jsonl, test: b.jsonl}\n"
    )
    done = retrikt("run", "task.yaml", where=tmp_path)
    assert done.returncode == 2
    assert "a.jsonl does not exist" in done.stderr


def test_serving_without_a_release_says_how_to_make_one(tmp_path: Path) -> None:
    done = retrikt("serve", where=tmp_path)
    assert done.returncode == 2
    assert "make quickstart" in done.stderr


def test_a_busy_port_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs/toy/releases").mkdir(parents=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = retrikt("serve", "--port", str(port), where=tmp_path)
    assert done.returncode == 7
    assert f"{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_release_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs/toy/releases").mkdir(parents=True)
    done = retrikt("release", "activate", "r-000000000000", where=tmp_path)
    assert done.returncode == 3
    assert "There is no release 'r-000000000000'" in done.stderr
