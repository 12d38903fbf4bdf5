"""Few-shot subsets, drawn so that figures of different runs can be compared."""

import random
from collections import defaultdict
from collections.abc import Sequence


def few_shot_rows(labels: Sequence[str], shots: int, seed: int) -> list[int]:
    """Rows of the subset, ascending.

    The rows of each class in file order, shuffled with `random.Random(seed)`, the first `shots`.
    """
    by_label: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        by_label[label].append(row)
    chosen: list[int] = []
    for rows in by_label.values():
        shuffled = list(rows)
        random.Random(seed).shuffle(shuffled)
        chosen.extend(shuffled[:shots])
    return sorted(chosen)
