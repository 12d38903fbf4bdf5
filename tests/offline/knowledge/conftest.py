"""A task's directory, made once and copied for each test that changes it."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from edited_task import build, copy


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("edited") / "task")


@pytest.fixture
def task(built: Path, tmp_path: Path) -> Path:
    return copy(built, tmp_path / "task")
