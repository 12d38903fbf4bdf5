"""Few-shot subsets, drawn so that figures of different runs can be compared."""

import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import islice


def few_shot_rows(
    labels: Sequence[str], shots: int, seed: int, *, allowed: Collection[int] | None = None
) -> list[int]:
    """Rows of the subset, ascending.

    The rows of each class in file order, shuffled with `random.Random(seed)`, the first `shots`.

    Args:
        labels: label of each row, in file order.
        shots: rows a class.
        seed: of the draw.
        allowed: rows that may be drawn, all by default. One that may not is passed over, so that
            all others are those of the usual draw.
    """
    by_label: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        by_label[label].append(row)
    chosen: list[int] = []
    for rows in by_label.values():
        shuffled = list(rows)
        random.Random(seed).shuffle(shuffled)
        drawn = (row for row in shuffled if allowed is None or row in allowed)
        chosen.extend(islice(drawn, shots))
    return sorted(chosen)
