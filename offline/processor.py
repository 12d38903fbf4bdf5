"""What suits torch on a processor: a number of threads, shapes that come again."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """So many threads for torch's operations: sums are rounded alike wherever there are as many.

    Small products gain next to nothing by a second one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(number)
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
