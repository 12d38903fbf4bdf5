"""A share of the texts in the service's log, redacted, where somebody asked for that."""

import random
from collections.abc import Sequence

import structlog

from services.platform.redaction import redact
from services.student.predictor import Prediction, TextInput

log = structlog.get_logger(__name__)

LONGEST = 500
"""Characters of a text that are logged."""


class TextSamples:
    """Logs the event `text_sample` for a share of the texts: the text, redacted, and what was answered."""

    def __init__(self, share: float) -> None:
        """`share`: of the texts, from 0 to 1."""
        self._share = share

    def look(self, texts: Sequence[TextInput], prediction: Prediction) -> None:
        """Log some of a batch's texts; `prediction` has one row for each."""
        for row, text in enumerate(texts):
            if random.random() >= self._share:
                continue
            first = int(prediction.probabilities[row].argmax())
            log.info(
                "text_sample",
                text=redact(text.text[:LONGEST]),
                **({} if text.pair is None else {"text_pair": redact(text.pair[:LONGEST])}),
                label=prediction.labels[first],
                score=round(float(prediction.probabilities[row, first]), 4),
                release=prediction.release,
                degraded=prediction.degraded,
            )
