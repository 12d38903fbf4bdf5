"""The predictor of a task's live release, its store in the same process: what our service and every peer serve."""

from pathlib import Path
from typing import Any

import numpy as np

from services.releases.directory import ReleaseDirectory
from services.store.client import EmbeddedStoreClient
from services.student.predictor import Predictor, TextInput

TASK_DIR = "BENCHMARK_TASK_DIR"
"""Variable that tells a peer which task to serve."""

PORT = "BENCHMARK_PORT"

MAX_BATCH = 64
"""Texts that a peer may compute together: as many as our service does."""


def open_predictor(task_dir: Path) -> Predictor:
    """One ONNX thread, as in our service."""
    releases = ReleaseDirectory(task_dir / "releases")
    live = releases.live()
    if live is None:
        raise SystemExit(f"{task_dir} has no live release: run the pipeline first.")
    client = EmbeddedStoreClient.edge(task_dir / "store", knowledge=releases.knowledge_of_version)
    return Predictor.load(releases.path(live.release), client)


def answers(predictor: Predictor, texts: list[str]) -> list[list[dict[str, Any]]]:
    """For each text every label with its score, best first, as `POST /predict` answers it."""
    prediction = predictor.predict([TextInput(text) for text in texts])
    order = np.argsort(-prediction.probabilities, axis=1, kind="stable")
    scores = np.take_along_axis(prediction.probabilities, order, axis=1).tolist()
    labels = prediction.labels
    return [
        [
            {"label": labels[label], "score": score}
            for label, score in zip(columns, row, strict=True)
        ]
        for columns, row in zip(order.tolist(), scores, strict=True)
    ]
