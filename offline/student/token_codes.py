"""Token embeddings composed from shared parts, so that a small student knows many words.

Product quantisation (Jégou et al. 2011; for word embeddings: Shu and Nakayama 2018): an embedding is cut
into parts of equal length, each part is replaced by the nearest of 256 that all tokens share, and a
token costs one byte a part instead of a row of weights.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

PARTS_SHARED = 256
"""As many as a byte tells apart."""

_SEED = 0
# Whole passes, from rows drawn at random: nearer to the embeddings than batches from k-means++ come,
# in a quarter of the time.
_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class TokenCodes:
    """Codes of tokens into shared parts.

    Attributes:
        codes: (tokens, parts) uint8.
        books: (parts, 256, width of a part) float32.
    """

    codes: NDArray[np.uint8]
    books: NDArray[np.float32]

    def embeddings(self) -> NDArray[np.float32]:
        """(tokens, parts x width of a part): what the codes stand for."""
        parts = np.arange(self.codes.shape[1])
        found: NDArray[np.float32] = self.books[parts, self.codes].reshape(len(self.codes), -1)
        return found


def quantise(embeddings: NDArray[np.float32], parts: int) -> TokenCodes:
    """Codes and shared parts by k-means, the same for the same embeddings, whatever the number of processors.

    Args:
        embeddings: (tokens, dimensions); of like variance in each part, or the parts with little of it
            waste their codes.
        parts: a divisor of the dimensions.
    """
    width = embeddings.shape[1] // parts
    codes = np.zeros((len(embeddings), parts), dtype=np.uint8)
    books = np.zeros((parts, PARTS_SHARED, width), dtype=np.float32)
    for part in range(parts):
        rows = embeddings[:, part * width : (part + 1) * width]
        if len(rows) <= PARTS_SHARED:
            books[part, : len(rows)] = rows
            codes[:, part] = np.arange(len(rows))
            continue
        with threadpool_limits(1):
            means = KMeans(
                PARTS_SHARED, init="random", max_iter=_ROUNDS, n_init=1, random_state=_SEED
            ).fit(rows)
        books[part] = means.cluster_centers_
        codes[:, part] = means.labels_
    return TokenCodes(codes, books)


def interleaved(dimensions: int, parts: int) -> NDArray[np.int64]:
    """An order of principal components in which each part gets large and small ones alike."""
    order: NDArray[np.int64] = np.arange(dimensions).reshape(-1, parts).T.reshape(-1)
    return order
