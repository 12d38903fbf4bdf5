"""What suits torch on a processor: one thread for small work, shapes that come again."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Small products gain next to nothing by a second thread, and sums then do not hang on the number of processors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def rounded(length: int, step: int = 8) -> int:
    """A length up to the next multiple of `step`.

    Matrix products of a shape that has not been seen are prepared first, on a processor for longer than
    they take (oneDNN compiles a kernel for each): shapes that come again are worth some padding.
    """
    return -(-length // step) * step
