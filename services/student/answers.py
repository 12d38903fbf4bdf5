"""Answers as bytes: every label and its score, best first; and what an answer was made of."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from services.platform.errors import RetriktError
from services.platform.http import error_body
from services.store.client import StoredItem
from services.student.lexical_words import Word
from services.student.mixing import MixingParameters, neighbour_weights
from services.student.predictor import Floats, Prediction

NUMPY = orjson.OPT_SERIALIZE_NUMPY
LEAST_PROBABILITY = np.float32(1e-38)
"""Stands for 0 under a logarithm, which JSON could not hold."""


class RankedJson:
    """Writes rows of scores as `[{"label": …, "score": …}, …]`.

    Label names are serialised once, and the scores of a batch in one call: a tenth of the time of a
    dictionary a label.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._heads = [b'{"label":' + orjson.dumps(label) + b',"score":' for label in labels]

    def rows(
        self, probabilities: Floats, *, raw: bool = False, top_k: int | None = None
    ) -> list[bytes]:
        """One JSON array for each row of (b, L).

        Args:
            probabilities: rows that sum to 1.
            raw: write their logarithms.
            top_k: write the best labels alone.
        """
        if not len(probabilities):
            return []
        order, scores = best_first(probabilities, raw=raw, top_k=top_k)
        heads = self._heads
        written = orjson.dumps(np.ascontiguousarray(scores), option=NUMPY)[2:-2].split(b"],[")
        return [
            b"["
            + b"},".join(
                [heads[label] + score for label, score in zip(labels, row.split(b","), strict=True)]
            )
            + b"}]"
            for labels, row in zip(order.tolist(), written, strict=True)
        ]


def best_first(
    probabilities: Floats, *, raw: bool = False, top_k: int | None = None
) -> tuple[NDArray[np.int64], Floats]:
    """Columns and scores of each row of (b, L), sorted; both are (b, top_k or L)."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    scores = np.take_along_axis(probabilities, order, axis=1)
    return order, np.log(np.maximum(scores, LEAST_PROBABILITY)) if raw else scores


def batch_body(answers: Iterable[bytes], faults: Mapping[int, RetriktError]) -> bytes:
    """A JSON array of answers, the error of each input that has none in its place."""
    return b"[" + b",".join(_with_faults(answers, faults)) + b"]"


def explained(
    prediction: Prediction,
    rows: range,
    ranked: Sequence[bytes],
    soft_labels: NDArray[np.float16],
    items: Mapping[int, StoredItem],
    words: Sequence[Sequence[Word] | None],
    mixing: MixingParameters,
    label_weights: Floats | None,
    *,
    show_texts: bool = True,
    faults: Mapping[int, RetriktError],
) -> bytes:
    """The body of an explained answer: `ExplainedAnswer` of `services.student.schemas`.

    Args:
        prediction: of the batch.
        rows: those of this request.
        ranked: their scores, as `RankedJson.rows` writes them.
        soft_labels: of the release.
        items: the neighbours' texts, as far as the store gave them.
        words: what the words of each text say for its best label; None without a lexical index.
        mixing: what the neighbours were weighed with.
        label_weights: (L,) what their soft labels were multiplied by; None where nothing was.
        show_texts: the caller may see the neighbours' texts.
        faults: the errors of inputs that could not be classified, by their position.
    """
    explanations = [
        orjson.dumps(
            {
                "scores": orjson.Fragment(scores),
                "student": _by_label(prediction.labels, prediction.student[row]),
                "store": None
                if prediction.store is None
                else _by_label(prediction.labels, prediction.store[row]),
                "weight": prediction.weight[row],
                "corrections": None
                if prediction.corrections is None
                else _by_known_label(prediction.labels, prediction.corrections[row]),
                "added_by_words": None
                if prediction.added_by_words is None
                else _by_added_label(prediction.labels, prediction.added_by_words[row]),
                "distance": None if prediction.distance is None else prediction.distance[row],
                "out_of_distribution": None
                if prediction.out_of_distribution is None
                else prediction.out_of_distribution[row],
                "words": None if said is None else [word._asdict() for word in said],
                "neighbours": _neighbours(prediction, row, soft_labels, items, mixing, show_texts),
            },
            option=NUMPY,
        )
        for row, scores, said in zip(rows, ranked, words, strict=True)
    ]
    answer = {
        "release": prediction.release,
        "degraded": prediction.degraded,
        "seconds": prediction.seconds,
        "lexical_share": mixing.lexical_share,
        "label_weights": None
        if label_weights is None
        else _by_label(prediction.labels, label_weights),
        "predictions": orjson.Fragment(batch_body(explanations, faults)),
    }
    return orjson.dumps(answer, option=NUMPY)


def neighbour_ids(prediction: Prediction, rows: range) -> list[int]:
    """Ids of the items that those rows of a batch were answered with, each once."""
    if prediction.neighbour_ids is None:
        return []
    ids = np.unique(prediction.neighbour_ids[rows.start : rows.stop])
    found: list[int] = ids[ids >= 0].tolist()
    return found


def _neighbours(
    prediction: Prediction,
    row: int,
    soft_labels: NDArray[np.float16],
    items: Mapping[int, StoredItem],
    mixing: MixingParameters,
    show_texts: bool,
) -> list[dict[str, Any]]:
    if prediction.neighbour_ids is None or prediction.similarities is None:
        return []
    neighbours = []
    similarities = prediction.similarities[row]
    weights = neighbour_weights(similarities[None], mixing)[0]
    for identity, similarity, weight in zip(
        prediction.neighbour_ids[row].tolist(), similarities, weights, strict=True
    ):
        if identity < 0:
            continue
        item = items.get(identity)
        neighbours.append(
            {
                "id": identity,
                "similarity": similarity,
                "weight": weight,
                "labels": _by_label(prediction.labels, soft_labels[identity].astype(np.float32)),
                "text": item.text if item and show_texts else None,
                "text_pair": item.text_pair if item and show_texts else None,
                "label": item.label if item else None,
                "origin": item.origin if item else None,
            }
        )
    return neighbours


def _by_label(labels: Sequence[str], values: Floats) -> dict[str, Any]:
    return dict(zip(labels, values, strict=True))


def _by_known_label(labels: Sequence[str], values: Floats) -> dict[str, Any]:
    """The student's labels come first, and it may know fewer than the release has."""
    return dict(zip(labels, values, strict=False))


def _by_added_label(labels: Sequence[str], values: Floats) -> dict[str, Any]:
    """Those that the student does not know come last."""
    return dict(zip(labels[len(labels) - len(values) :], values, strict=True))


def _with_faults(answers: Iterable[bytes], faults: Mapping[int, RetriktError]) -> list[bytes]:
    placed = list(answers)
    for position in sorted(faults):
        placed.insert(position, orjson.dumps(error_body(faults[position])))
    return placed
