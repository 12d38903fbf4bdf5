"""The log of a training run: TensorBoard reads it, and it depends on the figures alone."""

import json
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from offline.teacher.run_log import EVENTS, LOG, RunLog

ROWS = [
    {"step": 0.0, "held_out_reward": 1.5},
    {"step": 1.0, "reward": 0.25, "reward_accuracy": 0.5, "kl": 0.125, "custom": 3.0},
]


def write(directory: Path) -> Path:
    directory.mkdir()
    with RunLog(directory, step="step") as log:
        for row in ROWS:
            log(row)
    return directory / EVENTS


def test_tensorboard_reads_every_figure_of_every_row(tmp_path: Path) -> None:
    path = write(tmp_path / "run")
    found = [
        (event.step, value.tag, value.simple_value)
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]
    assert found == [
        (0, "held out/held_out_reward", 1.5),
        (1, "reward/reward", 0.25),
        (1, "reward/reward_accuracy", 0.5),
        (1, "policy/kl", 0.125),
        (1, "training/custom", 3.0),
    ]
    assert "tfevents" in path.name, "what TensorBoard looks for"


def test_the_same_rows_write_the_same_bytes_at_another_time(tmp_path: Path) -> None:
    first = write(tmp_path / "first").read_bytes()
    time.sleep(1.1)
    assert write(tmp_path / "again").read_bytes() == first


def test_a_row_can_be_read_before_the_run_has_ended(tmp_path: Path) -> None:
    with RunLog(tmp_path, step="step") as log:
        log(ROWS[1])
        events = list(LegacyEventFileLoader(str(tmp_path / EVENTS)).Load())
        assert len(events) == 2
        assert json.loads((tmp_path / LOG).read_text()) == pytest.approx(ROWS[1])
