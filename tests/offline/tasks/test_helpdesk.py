"""The quickstart's data are what their card says: frozen, balanced, and no test text leans on a training text."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import offline.tasks
from offline.teacher.encoder import load_encoder

HELPDESK = Path(offline.tasks.__file__).parent / "helpdesk"
SPLITS = {"train": 24, "validation": 8, "test": 40}
FILES = (*SPLITS, "unlabelled")


def rows(split: str) -> list[dict[str, str]]:
    lines = (HELPDESK / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def trigrams(text: str) -> set[str]:
    plain = "".join(letter for letter in text.lower() if letter.isalnum() or letter == " ")
    return {plain[start : start + 3] for start in range(len(plain) - 2)}


@pytest.mark.parametrize("split", FILES)
def test_the_files_are_those_of_the_card(split: str) -> None:
    card = (HELPDESK / "README.md").read_text(encoding="utf-8")
    told = re.search(rf"`{split}\.jsonl` \| ([\d,]+) .*`([0-9a-f]{{64}})`", card)
    assert told is not None
    assert hashlib.sha256((HELPDESK / f"{split}.jsonl").read_bytes()).hexdigest() == told[2]
    assert len(rows(split)) == int(told[1].replace(",", ""))


@pytest.mark.parametrize(("split", "least"), SPLITS.items())
def test_every_label_has_enough_sentences(split: str, least: int) -> None:
    counts = Counter(row["label"] for row in rows(split))
    assert len(counts) == 16
    assert min(counts.values()) >= least


def test_no_text_is_near_one_of_another_split() -> None:
    texts = [(split, row["text"]) for split in FILES for row in rows(split)]
    embeddings = load_encoder().embed([text for _, text in texts])
    similarity = np.triu(embeddings @ embeddings.T, 1)
    grams = [trigrams(text) for _, text in texts]
    for row, other in zip(*np.nonzero(similarity > 0.5), strict=True):
        if texts[row][0] != texts[other][0]:
            shared = len(grams[row] & grams[other]) / len(grams[row] | grams[other])
            assert similarity[row, other] < 0.75, (texts[row], texts[other])
            assert shared < 0.5, (texts[row], texts[other])
