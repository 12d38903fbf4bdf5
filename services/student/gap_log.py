"""The log of knowledge gaps: texts that the store knows little about, kept where somebody wants them.

Two signs are looked for. *Far*: the nearest knowledge item is less similar than it is for nearly all
texts of late; what counts as far is a share of the traffic, as cosines of one encoder say nothing beside
those of another. *Differ*: the student alone and the store alone have different first labels, though the
student's head knows the store's. `retrikt gaps` groups what was kept.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from services.platform.redaction import redact
from services.student.line_log import LineLog
from services.student.metrics import StudentMetrics
from services.student.predictor import Prediction, TextInput

FAR, DIFFER = "far", "differ"
REMEMBERED = 4096
"""Texts of late, by which a text is far or not."""
LEAST_REMEMBERED = 200
"""Before so many were seen, none is far."""
_COUNTED_EVERY = 64


class Nearness:
    """The similarity below which a share of the latest texts lies.

    Attributes:
        threshold: that similarity; -inf until enough texts were seen.
    """

    def __init__(self, share: float) -> None:
        """`share`: of the texts, from 0 to 1, that are to lie below."""
        self.threshold = -np.inf
        self._share = share
        self._latest = np.empty(REMEMBERED, np.float32)
        self._seen = 0
        self._count_at = LEAST_REMEMBERED

    def observe(self, similarities: NDArray[np.float32]) -> None:
        """Take note of texts, by the similarity of their nearest item."""
        places = np.arange(self._seen, self._seen + len(similarities)) % REMEMBERED
        self._latest[places] = similarities
        self._seen += len(similarities)
        if self._seen >= self._count_at:
            self._count_at = self._seen + _COUNTED_EVERY
            latest = self._latest[: min(self._seen, REMEMBERED)]
            # A rank of the sample itself: between two of them, interpolation would meet -inf.
            self.threshold = float(np.quantile(latest, self._share, method="higher"))


class GapLog:
    """Keeps texts of either sign as JSON lines.

    A line has `at`, `text` (and `text_pair`), `signs`, `similarity` of the nearest item, the `label` that
    was answered and its `score`, the first labels of the `student` and of the `store` alone, and the
    `release`.
    """

    def __init__(
        self,
        lines: LineLog,
        *,
        far_share: float,
        redacted: bool,
        metrics: StudentMetrics,
    ) -> None:
        """Keep gaps in `lines`, which `close` closes.

        Args:
            lines: where they are kept.
            far_share: share of the texts that count as far.
            redacted: take e-mail addresses, numbers and tokens out of the texts.
            metrics: counts them.
        """
        self._lines = lines
        self._nearness = Nearness(far_share)
        self._release = ""
        self._far_share = far_share
        self._shown = redact if redacted else str
        self._metrics = metrics
        metrics.requests.watch(metrics.far_below, lambda: self._nearness.threshold)

    def look(self, texts: Sequence[TextInput], prediction: Prediction, known: int) -> None:
        """Keep those of a batch's texts that show a sign; none where the store was not asked.

        Args:
            texts: of the batch.
            prediction: one row for each of them.
            known: labels that the student's head knows, the first of the release's.
        """
        if prediction.store is None or prediction.similarities is None:
            return
        if prediction.release != self._release:
            # Another encoder has other similarities.
            self._release, self._nearness = prediction.release, Nearness(self._far_share)
        best = prediction.similarities[:, 0]
        far = best < self._nearness.threshold
        self._nearness.observe(best)
        store, student = prediction.store.argmax(axis=1), prediction.student.argmax(axis=1)
        # What the store says of labels that the head does not know is no disagreement.
        differ = (store != student) & (store < known)
        self._metrics.gaps[FAR].inc(int(far.sum()))
        self._metrics.gaps[DIFFER].inc(int(differ.sum()))
        for row in np.flatnonzero(far | differ).tolist():
            first = int(prediction.probabilities[row].argmax())
            line = {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "text": self._shown(texts[row].text),
                "signs": [sign for sign, seen in ((FAR, far), (DIFFER, differ)) if seen[row]],
                "similarity": _rounded(best[row]),
                "label": prediction.labels[first],
                "score": _rounded(prediction.probabilities[row, first]),
                "student": prediction.labels[int(student[row])],
                "store": prediction.labels[int(store[row])],
                "release": prediction.release,
            }
            pair = texts[row].pair
            self._lines.write(line if pair is None else {**line, "text_pair": self._shown(pair)})

    def close(self) -> None:
        """Write what waits."""
        self._lines.close()


def _rounded(value: np.float32) -> float | None:
    """JSON knows no infinity, which the similarity is where the store is empty."""
    return round(float(value), 4) if np.isfinite(value) else None
