"""How far a text is from the knowledge that it is answered with: the farther, the less its answer means.

A pure function over the array-API standard, as those of `services.student.mixing`. Sun et al. 2022,
"Out-of-Distribution Detection with Deep Nearest Neighbors", take the distance to the k-th neighbour of unit
vectors. The mean over the k neighbours that the answer is mixed from told other tasks' sentences apart as well on
two tasks, and asks for no search of its own.
"""

import math

from array_api_compat import array_namespace

from services.student.mixing import Array

FARTHEST = 2.0
"""The distance of opposite vectors."""


def neighbour_distance(similarities: Array) -> Array:
    """(b,): one minus the mean cosine to the neighbours, from 0 to 2; 2 for a row without any.

    Args:
        similarities: (b, k) cosines, padded with -inf where the store gave fewer.
    """
    xp = array_namespace(similarities)
    found = similarities > -math.inf
    nothing = xp.zeros_like(similarities)
    count = xp.sum(xp.astype(found, similarities.dtype), axis=-1)
    total = xp.sum(xp.where(found, 1.0 - similarities, nothing), axis=-1)
    none = xp.zeros_like(total) + FARTHEST
    return xp.where(count > 0, total / xp.where(count > 0, count, xp.ones_like(count)), none)
