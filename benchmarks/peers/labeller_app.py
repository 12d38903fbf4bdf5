"""The labeller that taught the student (MiniLM and its head) behind a FastAPI route, a text a request.

Run by this project's own interpreter. The route computes on the event loop: threads would only take turns on the
same cores, as torch computes a text on all of them.
"""

import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from same_predictor import TASK_DIR

from offline.teacher.labeller import load_labeller

(STAGE,) = (Path(os.environ[TASK_DIR]) / "stages" / "labeller").iterdir()
labeller = load_labeller(STAGE)
app = FastAPI()


class Body(BaseModel):
    inputs: str


@app.post("/predict")
async def predict(body: Body) -> list[dict[str, Any]]:
    scores = labeller.soft_labels([body.inputs])[0].tolist()
    ranked = sorted(zip(labeller.labels, scores, strict=True), key=lambda entry: -entry[1])
    return [{"label": label, "score": score} for label, score in ranked]


@app.get("/readyz")
async def ready() -> dict[str, str]:
    return {}
