"""Finding texts that say what another says: by wording (MinHash), then by meaning (embeddings)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from offline.tasks.normal_form import letters_and_digits

_SHINGLE = 4
_PERMUTATIONS = 64
_BLOCK = 256


class WordingIndex:
    """Texts found again by their four-character sequences (letters and digits alone).

    MinHash with locality-sensitive hashing proposes, the exact Jaccard similarity decides.

    Args:
        jaccard: from this similarity on, two texts are near-duplicates.
    """

    def __init__(self, jaccard: float) -> None:
        self._jaccard = jaccard
        # Buckets may propose too much, since the exact similarity follows; they should miss little.
        self._buckets = MinHashLSH(threshold=jaccard, num_perm=_PERMUTATIONS, weights=(0.1, 0.9))
        self._shingles: list[frozenset[str]] = []

    def __len__(self) -> int:
        return len(self._shingles)

    def add(self, text: str) -> int:
        """Number of the text, from 0."""
        found = shingles(text)
        number = len(self._shingles)
        self._buckets.insert(number, _sketch(found))
        self._shingles.append(found)
        return number

    def find(self, text: str) -> int | None:
        """Number of the most similar text that was added, the first of equal ones; None if none is near."""
        found = shingles(text)
        best: tuple[float, int] | None = None
        for number in sorted(self._buckets.query(_sketch(found))):
            similarity = jaccard_similarity(found, self._shingles[number])
            if similarity >= self._jaccard and (best is None or similarity > best[0]):
                best = similarity, number
        return None if best is None else best[1]


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """What `find_near_duplicates` found, a row a text.

    Attributes:
        wording: (n,) whether a known text or an earlier kept one has nearly the same wording.
        meaning: (n,) the same by embedding, where the wording differs.
        known: (n,) whether that other text is a known one.
        nearest: (n,) cosine to the most similar text that is known or kept before it; -1 for none.
    """

    wording: NDArray[np.bool_]
    meaning: NDArray[np.bool_]
    known: NDArray[np.bool_]
    nearest: NDArray[np.float32]

    @property
    def kept(self) -> NDArray[np.bool_]:
        return ~(self.wording | self.meaning)


def find_near_duplicates(
    texts: Sequence[str],
    embeddings: NDArray[np.float32],
    *,
    known_texts: Iterable[str],
    known_embeddings: NDArray[np.float32],
    jaccard: float,
    similarity: float,
) -> NearDuplicates:
    """Go through the texts in order and keep each that is near no known text and no text kept before.

    Args:
        texts: n texts, the ones to prefer first.
        embeddings: (n, d) of unit length.
        known_texts: m texts that are there already.
        known_embeddings: (m, d) of unit length.
        jaccard: of wording, from which on two texts are near-duplicates.
        similarity: cosine of embeddings from which on they are.
    """
    index = WordingIndex(jaccard)
    for text in known_texts:
        index.add(text)
    knowns = len(index)
    wording, meaning, known = (np.zeros(len(texts), dtype=bool) for _ in range(3))
    nearest = np.full(len(texts), -1.0, dtype=np.float32)
    kept = np.empty((knowns + len(texts), embeddings.shape[1]), dtype=np.float32)
    kept[:knowns] = known_embeddings
    size = knowns
    for start in range(0, len(texts), _BLOCK):
        block = embeddings[start : start + _BLOCK]
        # One product with all that was kept before the block; the rest is within the block.
        before = block @ kept[:size].T if size else np.empty((len(block), 0), np.float32)
        within = block @ block.T
        fresh: list[int] = []
        for place, row in enumerate(range(start, start + len(block))):
            similarities = np.concatenate([before[place], within[place, fresh]])
            closest = int(similarities.argmax()) if len(similarities) else -1
            if closest >= 0:
                nearest[row] = similarities[closest]
            twin = index.find(texts[row])
            if twin is not None:
                wording[row], known[row] = True, twin < knowns
            elif nearest[row] >= similarity:
                meaning[row], known[row] = True, closest < knowns
            else:
                index.add(texts[row])
                fresh.append(place)
        kept[size : size + len(fresh)] = block[fresh]
        size += len(fresh)
    return NearDuplicates(wording, meaning, known, nearest)


def shingles(text: str) -> frozenset[str]:
    """All sequences of four letters and digits; the whole text where it has fewer."""
    form = letters_and_digits(text)
    return frozenset(
        form[start : start + _SHINGLE] for start in range(max(1, len(form) - _SHINGLE + 1))
    )


def jaccard_similarity(first: frozenset[str], second: frozenset[str]) -> float:
    """Shared elements as a share of all."""
    return len(first & second) / len(first | second)


def _sketch(elements: frozenset[str]) -> MinHash:
    sketch = MinHash(num_perm=_PERMUTATIONS, seed=1)
    sketch.update_batch([element.encode() for element in elements])
    return sketch
