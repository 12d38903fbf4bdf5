"""Texts of a kind put together: Ward's clustering of their vectors, cut where the groups are most distinct.

The number of groups is the one with the best silhouette, as long as that says that there are kinds at all (Rousseeuw,
1987; 0.25 as in Kaufman and Rousseeuw, 1990): of texts without, it would grow with every group, and about the root of
their number is taken. A group's words are those with the highest class-based TF-IDF (Grootendorst, 2022), counted
once a text.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from sklearn.metrics import silhouette_score

from offline.gaps.reading import Gap

MOST_CLUSTERED = 4000
"""Every pair of them takes 8 bytes while they are."""

_CANDIDATES = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 60)
_LEAST_A_GROUP = 5
_SOME_STRUCTURE = 0.25
_WORDS = 6
_WORD = r"\b(?!(?:email|url|number|token)\b)[^\W\d]\w\w+\b"
"""Words of three letters and more; the marks of redaction are none."""


@dataclass(frozen=True, slots=True)
class Group:
    """Gaps of a kind.

    Attributes:
        gaps: its texts, those nearest to the group's centre first.
        words: that set it apart.
        asked: how often its texts were kept.
        signs: how often each sign was seen.
        labels: what its texts were answered with, the most frequent first.
        alone: first labels of student and store where they differed, the most frequent first.
        similarity: mean of its texts' to their nearest item; None where there was none.
        cohesion: mean cosine of its texts to its centre.
    """

    gaps: list[Gap]
    words: tuple[str, ...]
    asked: int
    signs: dict[str, int]
    labels: dict[str, int]
    alone: list[tuple[str, str, int]]
    similarity: float | None
    cohesion: float


def group_gaps(
    gaps: Sequence[Gap],
    vectors: NDArray[np.float32],
    count: int | None = None,
    *,
    most_clustered: int = MOST_CLUSTERED,
) -> list[Group]:
    """Groups of gaps, the most asked first.

    Args:
        gaps: the texts.
        vectors: (n, d) of unit length, one for each.
        count: how many groups; chosen where it is not given.
        most_clustered: texts that are clustered, the first; the others join the group whose centre is nearest.
    """
    if not gaps:
        return []
    members = _clusters(vectors, count, most_clustered)
    clusters = [np.flatnonzero(members == number) for number in np.unique(members)]
    words = _words([[gaps[row] for row in rows.tolist()] for rows in clusters])
    groups = []
    for rows, own_words in zip(clusters, words, strict=True):
        near = vectors[rows] @ _unit(vectors[rows].mean(axis=0))
        order = rows[np.argsort(-near, kind="stable")]
        groups.append(_group([gaps[row] for row in order.tolist()], own_words, float(near.mean())))
    return sorted(groups, key=lambda group: (-group.asked, group.gaps[0].text))


def _clusters(
    vectors: NDArray[np.float32], count: int | None, most_clustered: int
) -> NDArray[np.int64]:
    """The cluster of each row, from 1."""
    head, tail = vectors[:most_clustered], vectors[most_clustered:]
    most = len(head) if count is not None else len(head) // _LEAST_A_GROUP
    if len(head) < 2 or most < 2:
        return np.ones(len(vectors), np.int64)
    tree = linkage(head.astype(np.float64), method="ward")
    if count is None:
        distances = np.clip(1.0 - head @ head.T, 0.0, None)
        np.fill_diagonal(distances, 0.0)
        tried = {
            number: _silhouette(distances, fcluster(tree, number, "maxclust"))
            for number in _CANDIDATES
            if number <= most
        }
        count = max(tried, key=tried.__getitem__)
        if tried[count] < _SOME_STRUCTURE:
            count = min(tried, key=lambda number: abs(number - len(head) ** 0.5))
    members = np.asarray(fcluster(tree, min(count, most), "maxclust"), np.int64)
    if not len(tail):
        return members
    numbers = np.unique(members)
    centres = np.stack([_unit(head[members == number].mean(axis=0)) for number in numbers])
    joined = numbers[(tail @ centres.T).argmax(axis=1)]
    return np.concatenate([members, joined])


def _silhouette(distances: NDArray[np.float32], members: NDArray[np.int32]) -> float:
    """0 where it is not defined: one cluster, or as many as rows."""
    if not 2 <= len(np.unique(members)) < len(distances):
        return 0.0
    return float(silhouette_score(distances, members, metric="precomputed"))


def _words(groups: Sequence[Sequence[Gap]]) -> list[tuple[str, ...]]:
    counter = CountVectorizer(token_pattern=_WORD, binary=True)
    try:
        texts = counter.fit_transform(
            f"{gap.text} {gap.pair or ''}" for group in groups for gap in group
        )
    except ValueError:  # no text has a word
        return [() for _ in groups]
    ends = np.cumsum([len(group) for group in groups])
    counts = np.stack(
        [
            np.asarray(texts[end - len(group) : end].sum(axis=0)).ravel()
            for group, end in zip(groups, ends.tolist(), strict=True)
        ]
    ).astype(np.float64)
    frequency = counts / counts.sum(axis=1, keepdims=True).clip(1.0)
    rarity = np.log1p(counts.sum() / len(groups) / counts.sum(axis=0))
    names = counter.get_feature_names_out().tolist()
    content = np.array([name not in ENGLISH_STOP_WORDS for name in names])
    scores = frequency * rarity * content
    order = np.argsort(-scores, axis=1, kind="stable")[:, :_WORDS]
    return [
        tuple(names[column] for column in columns.tolist() if scores[row, column] > 0)
        for row, columns in enumerate(order)
    ]


def _group(gaps: list[Gap], words: tuple[str, ...], cohesion: float) -> Group:
    signs: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    alone: Counter[tuple[str, str]] = Counter()
    for gap in gaps:
        signs.update(gap.signs)
        labels.update(gap.labels)
        alone.update(gap.alone)
    similar = [gap.similarity for gap in gaps if gap.similarity is not None]
    return Group(
        gaps=gaps,
        words=words,
        asked=sum(gap.asked for gap in gaps),
        signs=dict(sorted(signs.items())),
        labels=dict(_ordered(labels)),
        alone=[(student, store, count) for (student, store), count in _ordered(alone)],
        similarity=round(float(np.mean(similar)), 4) if similar else None,
        cohesion=round(cohesion, 4),
    )


def _ordered(counts: Counter[Any]) -> list[tuple[Any, int]]:
    """The most frequent first, ties by name, so that the same log gives the same list."""
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return unit
