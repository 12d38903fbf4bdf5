"""Made-up vectors that lie as a student's do: unit length, around the centres of labels and smaller groups."""

import numpy as np
from numpy.typing import NDArray

LABELS, GROUPS = 77, 40
LABEL_SIMILARITY, GROUP_SIMILARITY = 0.6, 0.85


def clustered(count: int, dimensions: int, seed: int) -> NDArray[np.float32]:
    """Unit vectors (count, dimensions): a label's centre, a group's around it, the item around that.

    An item has a similarity of about `GROUP_SIMILARITY` to its group's centre, and that one
    `LABEL_SIMILARITY` to its label's. The centres are the same for every seed.
    """
    fixed, rng = np.random.default_rng(99), np.random.default_rng(seed)
    labels = _unit(fixed.normal(size=(LABELS, dimensions)))
    groups = around(np.repeat(labels, GROUPS, axis=0), LABEL_SIMILARITY, fixed)
    return around(groups[rng.integers(len(groups), size=count)], GROUP_SIMILARITY, rng)


def around(
    centres: NDArray[np.float32], similarity: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    noise = rng.standard_normal(centres.shape, dtype=np.float32) / np.sqrt(centres.shape[1])
    return _unit(centres + np.float32(np.sqrt(1 / similarity**2 - 1)) * noise)


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
