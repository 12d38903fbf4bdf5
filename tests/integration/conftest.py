"""A whole run of a small task, made once for the tests of this folder."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

import offline.tasks

HELPDESK = Path(offline.tasks.__file__).parent / "helpdesk"
LABELS = ("vpn_connection", "printer_problem", "file_recovery", "hardware_request")
ROWS = {"train": 16, "validation": 4, "test": 6}

CONFIGURATION = f"""
task:
  name: small
  labels: [{", ".join(LABELS)}]
  data: {{train: train.jsonl, validation: validation.jsonl, test: test.jsonl}}
labeller:
  strengths: [10.0]
  judge: {{word_features: 256, character_features: 256}}
generator: {{layers: 2, epochs: 2, max_tokens: 24}}
processes: 1
soft_prompt: {{epochs: 1}}
ppo: {{steps: 1, batch_size: 16, evaluation_samples: 16, comparison_samples: 32}}
generate: {{samples: 64}}
student:
  shape: {{coded: 500}}
  training: {{steps: 20}}
  mixing: {{k: [8]}}
baselines:
  fine_tuned_steps: 10
  distilled_steps: 10
  tfidf: {{strengths: [10.0]}}
"""


@dataclass(frozen=True)
class QuickRun:
    """Where the run is, and how the command is called there."""

    home: Path

    @property
    def directory(self) -> Path:
        return self.home / "runs" / "small"

    def retrikt(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "offline", *arguments],
            cwd=self.home,
            env={**os.environ, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> QuickRun:
    run = QuickRun(tmp_path_factory.mktemp("quick"))
    (run.home / "small.yaml").write_text(CONFIGURATION)
    for split, rows in ROWS.items():
        counts: Counter[str] = Counter()
        kept: list[str] = []
        for line in (HELPDESK / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
            label = json.loads(line)["label"]
            counts[label] += 1
            if label in LABELS and counts[label] <= rows:
                kept.append(line)
        (run.home / f"{split}.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    done = run.retrikt("run", "small.yaml", "--set", "processes=2")
    assert done.returncode == 0, done.stderr[-3000:]
    return run
