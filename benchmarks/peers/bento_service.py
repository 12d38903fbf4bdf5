"""BentoML round the predictor, its adaptive batching on; `bentoml serve bento_service:Student` starts it."""

import os
from pathlib import Path
from typing import Any

import bentoml
from same_predictor import MAX_BATCH, TASK_DIR, answers, open_predictor


@bentoml.service(name="student", workers=1)
class Student:
    def __init__(self) -> None:
        self.predictor = open_predictor(Path(os.environ[TASK_DIR]))

    # Shorter limits made it drop requests, longer ones made no difference.
    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=10_000)
    def predict(self, inputs: list[str]) -> list[list[dict[str, Any]]]:
        return answers(self.predictor, inputs)
