"""A snapshot's file: one compressed tar, its index first, every file's length and hash checked on the way out.

    snapshot.json       the index: what the snapshot is, and each other file's length and SHA-256
    version/…           the version's own files, as its backend saved them
    release/…           the release that it belongs to, where there is one

A tar may hold links, devices and paths that lead elsewhere. Only plain files that the index names
are taken out of one, and only below the directory that they go to.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from services.platform.durable_files import sync
from services.platform.errors import CorruptArtifact
from services.platform.file_hash import Sha256, length_and_hash
from services.store.backends.base import Engine, VersionManifest
from services.store.backends.sealed import stays_inside

INDEX = "snapshot.json"
VERSION = "version"
RELEASE = "release"
_LARGEST_INDEX = 16 << 20
_BLOCK = 1 << 16
_ZEROS = bytes(_BLOCK)


class PackedFile(BaseModel):
    """Length and SHA-256 of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class SnapshotIndex(BaseModel):
    """What a snapshot holds.

    Attributes:
        created_at: when it was made.
        engine: whose files lie in `version/`.
        version: manifest of the version.
        release: id of the release beside it, or None.
        files: every file but the index itself, by its path.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    created_at: datetime
    engine: Engine
    version: VersionManifest
    release: Annotated[str, Field(pattern=r"^r-[0-9a-f]{12}$")] | None
    files: dict[str, PackedFile]

    @field_validator("files")
    @classmethod
    def _paths_stay_inside(cls, files: dict[str, PackedFile]) -> dict[str, PackedFile]:
        for name in files:
            if not stays_inside(name) or PurePosixPath(name).parts[0] not in (VERSION, RELEASE):
                raise ValueError(f"the path {name!r} leads elsewhere")
        return files


def pack(path: Path, index: SnapshotIndex, sources: Mapping[str, Path]) -> None:
    """Write a snapshot and flush it to the disk.

    Args:
        path: of the new file.
        index: its `files` are filled in here.
        sources: where each file is, by its path in the snapshot.

    Raises:
        CorruptArtifact: a file changed while it was packed.
        OSError: as the disk says.
    """
    files = {name: _measure(source) for name, source in sorted(sources.items())}
    told = index.model_copy(update={"files": files}).model_dump_json().encode()
    with (
        path.open("wb") as file,
        pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd") as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        _add(tar, INDEX, io.BytesIO(told), len(told))
        for name, entry in files.items():
            with sources[name].open("rb") as source:
                _add(tar, name, source, entry.bytes)
    sync(path)


def read_index(path: Path) -> SnapshotIndex:
    """What a snapshot holds; its other files are not read. Raises CorruptArtifact."""
    with _opened(path) as (_, index):
        return index


def unpack(path: Path, directory: Path) -> SnapshotIndex:
    """Take every file out into `directory`, which exists and is empty; blocks of zeros take no room.

    Raises:
        CorruptArtifact: truncated or damaged, a file is missing, another, or not told in the index.
        OSError: as the disk says.
    """
    with _opened(path) as (tar, index):
        missing = dict(index.files)
        while (member := tar.next()) is not None:
            entry = missing.pop(member.name, None)
            content = tar.extractfile(member) if member.isreg() else None
            if entry is None or content is None or member.size != entry.bytes:
                raise CorruptArtifact(
                    f"The snapshot {path.name} holds {member.name!r} against its index."
                )
            if _take_out(content, directory / member.name) != entry:
                raise CorruptArtifact(f"{member.name} of the snapshot {path.name} is damaged.")
        if missing:
            raise CorruptArtifact(f"The snapshot {path.name} lacks {min(missing)}.")
    return index


@contextmanager
def _opened(path: Path) -> Iterator[tuple[tarfile.TarFile, SnapshotIndex]]:
    try:
        with (
            path.open("rb") as file,
            pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as packed,
            tarfile.open(fileobj=packed, mode="r|") as tar,
        ):
            first = tar.next()
            if first is None or first.name != INDEX or not first.isreg():
                raise CorruptArtifact(f"{path} is no snapshot: it does not begin with its index.")
            content = tar.extractfile(first) if first.size <= _LARGEST_INDEX else None
            if content is None:
                raise CorruptArtifact(f"The index of {path} is too large.")
            yield tar, SnapshotIndex.model_validate_json(content.read())
    except ValidationError as error:
        fault = error.errors()[0]["msg"]
        raise CorruptArtifact(f"The index of {path} cannot be read: {fault}.") from error
    except (tarfile.TarError, pa.ArrowException, EOFError) as error:
        raise CorruptArtifact(f"The snapshot {path} is truncated or damaged: {error}.") from error
    except OSError as error:
        # Arrow says of damaged bytes what the system says of its disks, but without a number.
        if error.errno is None:
            raise CorruptArtifact(
                f"The snapshot {path} is truncated or damaged: {error}."
            ) from error
        raise


def _measure(path: Path) -> PackedFile:
    length, digest = length_and_hash(path)
    return PackedFile(bytes=length, sha256=digest)


def _add(tar: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> None:
    """Names and contents alone: no owner, no time, so that the same files make the same snapshot."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    try:
        tar.addfile(entry, source)
    except OSError as error:
        if error.errno is None:
            raise CorruptArtifact(f"{name} changed while it was packed: {error}.") from error
        raise


def _take_out(content: IO[bytes], target: Path) -> PackedFile:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    # "x": what the directory holds already was not put there by us.
    with target.open("xb", buffering=0) as file:
        while block := content.read(_BLOCK):
            digest.update(block)
            if block != _ZEROS[: len(block)]:
                file.seek(size)
                file.write(block)
            size += len(block)
        file.truncate(size)
    return PackedFile(bytes=size, sha256=digest.hexdigest())
