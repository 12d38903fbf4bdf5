"""The script that tries the stack: its options, and the settings of the small release that it makes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from compose_files import ROOT  # noqa: E402

from offline.configs.run import load_run_config  # noqa: E402

SCRIPT = ROOT / "deploy" / "try_stack.sh"


def test_the_settings_of_the_small_release_are_those_of_the_configuration() -> None:
    text = SCRIPT.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.search(r"^for setting in (.*); do$", text, re.MULTILINE)
    assert found is not None
    small = load_run_config("helpdesk", found[1].split())
    assert small.generate.samples < load_run_config("helpdesk").generate.samples
    assert small.release.accuracy_drop == small.release.label_drop == 1.0


@pytest.mark.parametrize("words", [["--unknown"], ["--port"], ["runs/helpdesk"]])
def test_wrong_options_end_with_status_2_and_touch_nothing(words: list[str]) -> None:
    done = subprocess.run(
        [str(SCRIPT), *words],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_an_engine_that_fails_ends_the_script_with_its_words_and_status_1(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(SCRIPT), "--engine", "false", "--compose", "false", "--no-build"],
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "last log lines of student" in done.stderr
    assert not list(tmp_path.iterdir())
