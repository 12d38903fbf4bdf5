"""The compose files and the workflow against the published schemas, as check-jsonschema bundles them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from compose_files import EMBEDDED, ROOT, services, stack  # noqa: E402

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def check(schema: str, *files: Path) -> tuple[int, str]:
    """Exit status and words of check-jsonschema; nothing is fetched."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_both_compose_stacks_are_what_the_compose_specification_takes(tmp_path: Path) -> None:
    base, embedded = tmp_path / "base.json", tmp_path / "embedded.json"
    base.write_text(json.dumps(stack()), encoding="utf-8")
    # Laid over the base: the schema knows neither `!reset` nor `!override`.
    embedded.write_text(json.dumps(stack(EMBEDDED)), encoding="utf-8")
    status, said = check("vendor.compose-spec", base, embedded)
    assert status == 0, said


def test_the_workflow_is_what_github_takes() -> None:
    status, said = check("vendor.github-workflows", WORKFLOW)
    assert status == 0, said


def test_the_workflow_tries_the_store_against_the_qdrant_of_the_stack() -> None:
    job = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["qdrant"]
    assert job["services"]["qdrant"]["image"] == services()["qdrant"]["image"]
    assert job["env"]["QDRANT_URL"] == "http://127.0.0.1:6333"
    commands = [step.get("run", "") for step in job["steps"]]
    [suite] = [word for word in " ".join(commands).split() if word.startswith("tests/")]
    assert "QDRANT_URL" in (ROOT / suite).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        ("vendor.compose-spec", {"services": {"store": {"image": "a", "readonly": True}}}),
        ("vendor.github-workflows", {"on": "push", "jobs": {"test": {"run-on": "a", "steps": []}}}),
    ],
)
def test_the_schemas_refuse_a_misspelt_key(schema: str, wrong: Any, tmp_path: Path) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(wrong), encoding="utf-8")
    status, said = check(schema, file)
    assert status == 1, said
