"""Texts to ask with: like those in the store, but not in it."""

import json
import random
from pathlib import Path
from typing import Any

from services.releases.manifest import KNOWLEDGE
from services.store.knowledge_file import read_knowledge
from services.student.predictor import TextInput


def sample_texts(release: Path, count: int = 2000) -> list[TextInput]:
    """Texts of a release's items (its directory is given), of each one word left out."""
    table = read_knowledge(release / KNOWLEDGE).table
    rng = random.Random(0)
    texts = []
    for row in rng.sample(range(table.num_rows), min(count, table.num_rows)):
        words = table["text"][row].as_py().split()
        if len(words) > 1:
            words.pop(rng.randrange(len(words)))
        texts.append(TextInput(" ".join(words), table["text_pair"][row].as_py()))
    return texts


def inputs_of(text: TextInput) -> Any:
    """What `POST /predict` takes as its `inputs`."""
    return text.text if text.pair is None else [text.text, text.pair]


def write_bodies(path: Path, bodies: list[Any]) -> Path:
    """One request's body a line, as `benchmarks/load.py` reads them."""
    path.write_text("\n".join(json.dumps(body) for body in bodies), encoding="utf-8")
    return path
