"""A data set of two help desk labels in the shape that the benchmark reads."""

import json
from collections import Counter
from pathlib import Path

import pytest

import offline.tasks

HELPDESK = Path(offline.tasks.__file__).parent / "helpdesk"
LABELS = ("vpn_connection", "printer_problem")
ROWS = {"train": 12, "test": 6}
"""A label; `test` under the name that a data set without gold test labels has."""


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    folder = root / "small"
    folder.mkdir()
    for split, rows in ROWS.items():
        counts: Counter[str] = Counter()
        kept: list[str] = []
        for line in (HELPDESK / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
            label = json.loads(line)["label"]
            counts[label] += 1
            if label in LABELS and counts[label] <= rows:
                kept.append(line)
        name = "validation" if split == "test" else split
        (folder / f"{name}.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    return root
