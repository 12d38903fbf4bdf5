"""Files that survive a power cut: written aside, flushed to the disk, renamed into place.

A rename replaces a name at once, so that a process killed at any instant leaves the old file or the new
one. It is the flush before it that keeps the new one from being empty after a power cut, and the
flush of the folder after it that keeps the rename.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from services.platform.errors import StorageFull

_FULL = (errno.ENOSPC, errno.EDQUOT)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Flush every file and folder below `directory`, and itself, to the disk."""
    for path in directory.rglob("*"):
        sync(path)
    sync(directory)


def rename_into_place(aside: Path, target: Path) -> None:
    """Flush a finished file or directory and give it its name; a file there is replaced.

    Raises:
        OSError: `target` is a directory that is not empty, or cannot be written.
    """
    if aside.is_dir():
        sync_tree(aside)
    else:
        sync(aside)
    aside.replace(target)
    sync(target.parent)


@contextmanager
def replacing(target: Path, *, aside: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `target` once the block is left, and not if it raises.

    Args:
        target: the file's name.
        aside: its name until then; by default one beside `target` with the process's number.
    """
    aside = aside or target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            yield file
        rename_into_place(aside, target)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


@contextmanager
def full_disk_told(
    where: Path, lost: str | None = None, *, hint: str = "Make room and try again."
) -> Iterator[None]:
    """Raise `StorageFull` in place of the system's error where the block finds no room on the disk.

    Args:
        where: what is named as being on that disk.
        lost: what there is not for it. Without it the file that the error names, if any, is named
            instead of `where`.
        hint: what to do.
    """
    try:
        yield
    except OSError as error:
        if not _disk_is_full(error):
            raise
        if lost is None:
            message = f"The disk that holds {error.filename or where} is full."
        else:
            message = f"The disk that holds {where} is full: {lost}."
        raise StorageFull(message, hint=hint) from error


def _disk_is_full(error: OSError) -> bool:
    """Whether the disk, or the quota on it, has no room left."""
    if isinstance(error, shutil.Error):
        # `copytree` gathers what went wrong with each file, as text.
        reasons = " ".join(str(reason) for *_, reason in error.args[0])
        return any(os.strerror(number) in reasons for number in _FULL)
    return error.errno in _FULL
