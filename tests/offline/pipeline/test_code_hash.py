"""An edited comment redoes nothing; an edited module redoes the stages that import it, and only those."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parents[3]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("offline", "services"):
        shutil.copytree(TREE / name, tmp_path / name, ignore=shutil.ignore_patterns("*.jsonl"))
    return tmp_path


def hash_in(tree: Path, module: str = "offline.stages.prepare") -> str:
    program = f"from offline.pipeline.code_hash import code_hash; print(code_hash({module!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_comments_and_docstrings_do_not_count(tree: Path) -> None:
    before = hash_in(tree)
    edit(tree / "offline/tasks/few_shot.py", '"""Few-shot subsets', '"""Subsets')
    with (tree / "offline/stages/prepare.py").open("a") as file:
        file.write("# a remark\n")
    assert hash_in(tree) == before


def test_code_that_the_stage_imports_counts(tree: Path) -> None:
    before = hash_in(tree)
    edit(tree / "offline/tasks/few_shot.py", "islice(drawn, shots)", "islice(drawn, shots + 1)")
    assert hash_in(tree) != before


def test_an_edited_reward_redoes_ppo_and_not_the_stages_before_it(tree: Path) -> None:
    stages = ("offline.stages.ppo", "offline.stages.soft_prompt")
    before = [hash_in(tree, stage) for stage in stages]
    with (tree / "offline/teacher/reward_terms.py").open("a") as file:
        file.write("EXTRA = 1\n")
    after = [hash_in(tree, stage) for stage in stages]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_code_that_the_stage_does_not_import_does_not_count(tree: Path) -> None:
    before = hash_in(tree)
    with (tree / "offline/configs/loading.py").open("a") as file:
        file.write("EXTRA = 1\n")
    with (tree / "offline/pipeline/stage.py").open("a") as file:
        file.write("EXTRA = 1\n")
    assert hash_in(tree) == before
