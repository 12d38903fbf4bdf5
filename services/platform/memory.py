"""What the collector looks at, and giving memory that is not needed any more back to the system."""

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def frozen_start() -> Iterator[None]:
    """Have the garbage collector leave alone what is there at the start: modules, routes, settings.

    It is most of what a service has, and stays as long as it serves: each full collection would look
    at all of it, 50 ms of one core with every thread held up.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def give_back_what_went() -> None:
    """Collect, and have the C library return what was freed; the latter is nothing where it cannot.

    A model that is not served any more may hang on a cycle of references (an error's traceback is enough), and glibc
    keeps what was freed for later. Both together are tens of megabytes after every switch of a release.
    """
    gc.collect()
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        found = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # Another C library than glibc.
        return None
    found.argtypes = [ctypes.c_size_t]
    trim: Callable[[int], int] = found
    return trim
