"""A task directory with two tiny releases, made once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_task import TinyTask, build_task


@pytest.fixture(scope="session")
def built_task(tmp_path_factory: pytest.TempPathFactory) -> TinyTask:
    """Two releases, the first one live, both store versions sealed. Not to be changed."""
    return build_task(tmp_path_factory.mktemp("built") / "tiny")


@pytest.fixture
def task(built_task: TinyTask, tmp_path: Path) -> TinyTask:
    """A copy of that, for a test that changes it."""
    return built_task.copy(tmp_path / "tiny")
