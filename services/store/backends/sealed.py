"""Sealed directories: written aside, summed, flushed, renamed into place; copied with their sums checked.

A directory in the making, or a private copy, is owned through a lock on the directory itself. The
lock ends with its process, however that ends, so that whoever comes later knows a leftover by it.
"""

import errno
import fcntl
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path, PurePosixPath

import orjson

from services.platform.durable_files import full_disk_told
from services.platform.errors import CorruptArtifact, StoreUnavailable

SUMS = "sums.json"
ASIDE = ".aside-"
"""What the names of directories in the making start with."""

_BLOCK = 1 << 16
_ZEROS = bytes(_BLOCK)


class OwnedDirectory:
    """A new directory that is known as a leftover as soon as its owner is gone.

    Args:
        parent: where it is made.
        prefix: what its name starts with; leftovers are found by it.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            self._lock = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            # Before the lock was ours, another process may have taken it for a leftover.
            if self.path.exists():
                break
            os.close(self._lock)
        self._at_exit = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    @property
    def lock(self) -> int:
        """Descriptor of the lock; a child that inherits it owns the directory too."""
        return self._lock

    def remove(self) -> None:
        """Remove it, or what a rename has left of it: nothing. Gives the lock up."""
        self._at_exit()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove_leftovers(parent: Path, prefix: str) -> None:
    """Remove the directories of that prefix whose owner is gone; those of the living stay."""
    for path in parent.glob(f"{prefix}*"):
        with suppress(OSError), _ownerless(path):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _ownerless(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(where: Path, lost: str) -> Iterator[None]:
    """Turn what the operating system says of files into errors of ours.

    Args:
        where: the directory that is worked in.
        lost: what there is not, where the disk is full.

    Raises:
        StorageFull: the disk has no room left.
        StoreUnavailable: the files cannot be read or written.
    """
    try:
        with full_disk_told(where, lost):
            yield
    except OSError as error:
        raise StoreUnavailable(f"The directory {where} cannot be used: {error}.") from error


@contextmanager
def directory_aside(parent: Path, prefix: str, lost: str) -> Iterator[OwnedDirectory]:
    """A directory to write in before its content is put in place; gone afterwards, come what may.

    Args:
        parent: where it is made; made itself where there is none.
        prefix: what its name starts with; leftovers of that prefix are removed first.
        lost: see `disk_errors`, which turns the errors of the block too.
    """
    with disk_errors(parent, lost):
        parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(parent, prefix)
        aside = OwnedDirectory(parent, prefix)
        try:
            yield aside
        finally:
            aside.remove()


def write_sums(directory: Path) -> None:
    """Note length and CRC-32 of every file below `directory`, in `sums.json`.

    The engine itself opens damaged files without a word, so the sums are what guards them. They
    guard against accidents; identity hangs on the knowledge file's hash alone.
    """
    sums = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            sums[str(path.relative_to(directory))] = list(_length_and_sum(path))
    (directory / SUMS).write_bytes(orjson.dumps(sums))


def copy_checked(source: Path, target: Path) -> None:
    """Copy a directory that `write_sums` has summed; blocks of zeros take no room in the copy.

    Raises:
        CorruptArtifact: a file is missing, its length or sum is another, or its name leads elsewhere.
    """
    with _summed(source) as sums:
        for name, expected in sums.items():
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if _copy_sparse(source / name, copy) != expected:
                raise CorruptArtifact(f"{source / name} is not what was sealed.")


def check_sums(directory: Path) -> None:
    """Compare every file that `write_sums` has summed. Raises CorruptArtifact as `copy_checked` does."""
    with _summed(directory) as sums:
        for name, expected in sums.items():
            if _length_and_sum(directory / name) != expected:
                raise CorruptArtifact(f"{directory / name} is not what was sealed.")


@contextmanager
def _summed(directory: Path) -> Iterator[dict[str, tuple[int, int]]]:
    try:
        yield _read_sums(directory / SUMS)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorruptArtifact(f"The sealed directory {directory} is damaged: {error}.") from error


def _read_sums(path: Path) -> dict[str, tuple[int, int]]:
    try:
        found = orjson.loads(path.read_bytes())
        sums = {name: (length, crc) for name, (length, crc) in found.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise CorruptArtifact(f"{path} cannot be read: {error}.") from error
    # A restored snapshot brings its own: what is copied by it must not lead out of its directory.
    if elsewhere := [name for name in sums if not stays_inside(name)]:
        raise CorruptArtifact(f"{path} names {elsewhere[0]!r}, which leads elsewhere.")
    return sums


def stays_inside(name: str) -> bool:
    """Whether a name that is joined to a directory stays below it, links aside."""
    path = PurePosixPath(name)
    plain = str(path) == name and "\0" not in name
    return plain and path.parts != () and path.parts[0] != "/" and ".." not in path.parts


def _length_and_sum(path: Path) -> tuple[int, int]:
    crc = 0
    with path.open("rb", buffering=0) as file:
        for offset, block in _blocks(file):
            crc = _add(crc, offset, block)
        return os.fstat(file.fileno()).st_size, crc


def _copy_sparse(source: Path, target: Path) -> tuple[int, int]:
    crc = 0
    with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
        for offset, block in _blocks(reader):
            crc = _add(crc, offset, block)
            writer.seek(offset)
            writer.write(block)
        length = os.fstat(reader.fileno()).st_size
        writer.truncate(length)
    return length, crc


def _blocks(file: FileIO) -> Iterator[tuple[int, bytes]]:
    """Offset and content of a file's blocks, those of zeros left out; the engine's files are mostly holes."""
    offset, end = 0, os.fstat(file.fileno()).st_size
    while offset < end:
        try:
            data = os.lseek(file.fileno(), offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # Nothing but a hole up to the end.
                raise
            return
        offset = data - data % _BLOCK
        block = os.pread(file.fileno(), _BLOCK, offset)
        if block != _ZEROS[: len(block)]:
            yield offset, block
        offset += _BLOCK


def _add(crc: int, offset: int, block: bytes) -> int:
    return zlib.crc32(block, zlib.crc32(offset.to_bytes(8, "little"), crc))
