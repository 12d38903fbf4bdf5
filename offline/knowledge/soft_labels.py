"""Soft labels of what a person says of a text: the person's label, and the labeller's view beside it."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

PERSON_TRUST = 0.9
"""Probability that goes to a person's label, whatever the labeller thinks."""


def soft_labels(
    probabilities: Sequence[Mapping[str, float] | None],
    named: Sequence[str | None],
    labels: Sequence[str],
    known: int,
) -> NDArray[np.float32]:
    """(n, L): `PERSON_TRUST` on the person's label, and the rest as the labeller has it.

    A labelled row of a run weighs the two against each other (`gold_and_labeller`); here the person has seen the
    text and the present labels, and is obeyed: no labeller, however sure, makes another label the most
    probable one. A label that the labeller does not know gets what the person gives it.

    Args:
        probabilities: n distributions by the labeller, by label; None for none: the rest is then spread evenly.
        named: n labels by persons; None leaves the labeller's.
        labels: the L labels.
        known: how many of them, the first ones, the student knows.
    """
    place = {label: position for position, label in enumerate(labels)}
    found = np.zeros((len(named), len(labels)), dtype=np.float64)
    for row, (given, label) in enumerate(zip(probabilities, named, strict=True)):
        if given is None:
            found[row, :known] = 1.0
        else:
            for name, probability in given.items():
                if name in place:
                    found[row, place[name]] = probability
        total = found[row].sum()
        if total > 0:
            found[row] /= total
        elif label is None:
            found[row, :known] = 1.0 / known
        if label is not None:
            trust = PERSON_TRUST if total > 0 else 1.0
            found[row] *= 1.0 - trust
            found[row, place[label]] += trust
    return found.astype(np.float32)
