"""With the serving extras alone, both services start and no training library can be imported."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

TREE = Path(__file__).parents[1]
ABSENT = ("torch", "transformers", "datasets", "sklearn", "peft")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("serving") / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", f"{TREE}[student]"],
        check=True,
        capture_output=True,
        timeout=280,
    )
    return python


def call(python: Path, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-c", program], cwd=python.parent, capture_output=True, text=True, check=False
    )


def test_no_training_library_is_there(python: Path) -> None:
    program = (
        f"import importlib.util as u; print([n for n in {ABSENT!r} if u.find_spec(n) is not None])"
    )
    assert call(python, program).stdout.strip() == "[]"


def test_both_services_and_the_command_are_whole_without_them(python: Path) -> None:
    for module in ("services.student.app", "services.store.app", "services.student.predictor"):
        done = call(python, f"import {module}")
        assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [python.parent / "retrikt", "serve", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--store-url" in done.stdout


def test_this_environment_has_them_so_the_test_above_can_fail() -> None:
    done = call(Path(sys.executable), "import torch, sklearn")
    assert done.returncode == 0, done.stderr
