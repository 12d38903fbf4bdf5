"""Figures of the knowledge: how much of it there is, how varied it is, and whether it is what it says."""

from collections.abc import Mapping, Sequence

import numpy as np

from offline.report.metrics import accuracy
from offline.store.knowledge import Items, positions
from offline.teacher.diversity import copy_share, distinct_n, distinct_share, self_bleu
from offline.teacher.soft_labels import SoftLabeller

# Fixed, so that the figures of different runs are of draws made alike.
SELF_BLEU_SEED = 0


def knowledge_figures(
    parts: Sequence[Items],
    written: Items,
    train: Items,
    unlabelled: Items,
    judge: SoftLabeller,
    labels: tuple[str, ...],
) -> dict[str, float]:
    """Of the kept generated items; of all that was written under names that start with `written_`.

    `distinct`, `copies` (of training texts) and `copies_unlabelled` (of unlabelled ones) are shares, compared
    on letters and digits; `label_agreement` is the share
    that the judge takes for the label they were written for, `label_agreement_labeller` the same by
    the labeller; `confidence` the mean probability of the labeller's first label.
    """
    counts = {part.origin: len(part) for part in parts}
    known = {"copies": train.joined, "copies_unlabelled": unlabelled.joined}
    return {
        "items": sum(counts.values()),
        **{origin: counts.get(origin, 0) for origin in ("generated", "train", "unlabelled")},
        **_measured(parts[0], known, judge, labels),
        "written": len(written),
        **{
            f"written_{name}": value
            for name, value in _measured(written, known, judge, labels).items()
        },
    }


def _measured(
    items: Items,
    known: Mapping[str, Sequence[str]],
    judge: SoftLabeller,
    labels: tuple[str, ...],
) -> dict[str, float]:
    if not len(items):
        return {}
    texts, named = items.joined, items.labels or []
    asked = positions(named, labels)
    judged = judge.soft_labels(items.texts, items.pairs, embeddings=items.embeddings)
    found = {
        "distinct": distinct_share(texts),
        **{name: copy_share(texts, of) for name, of in known.items()},
        "label_agreement": accuracy(judged, asked),
        "label_agreement_labeller": accuracy(items.soft_labels, asked),
        "self_bleu": self_bleu(texts, named, seed=SELF_BLEU_SEED),
        "distinct_2": distinct_n(texts, 2),
        "confidence": float(items.soft_labels.max(1).mean()),
        "words": float(np.mean([len(text.split()) for text in texts])),
    }
    return {name: round(value, 6) for name, value in found.items()}
