"""What a finished stage says of itself, and the hashes of what it wrote."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from services.platform.errors import CorruptArtifact
from services.platform.file_hash import hash_file

MANIFEST = "manifest.json"


class StageManifest(BaseModel):
    """Written into a stage's directory last, before it is renamed into place.

    `content` covers the files alone: times, memory and metrics may differ between two runs that wrote the same.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    key: str
    seed: int
    inputs: dict[str, str]
    config: Any
    code: str
    outside: dict[str, str] = {}
    files: dict[str, str]
    content: str
    metrics: dict[str, Any]
    seconds: float
    peak_memory_bytes: int
    created_at: str
    versions: dict[str, str]


def hash_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hash_json(value: Any) -> str:
    """Hash of a JSON value, whatever the order of its keys."""
    return hash_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def hash_files(directory: Path) -> dict[str, str]:
    """Hash of every file below `directory` but its manifest, by relative POSIX path."""
    return {
        path.relative_to(directory).as_posix(): hash_file(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / MANIFEST
    }


def read_manifest(directory: Path) -> StageManifest:
    """The manifest of a finished stage, its files checked against it.

    Raises:
        CorruptArtifact: a file is missing, added or changed, or the manifest cannot be read.
    """
    try:
        manifest = StageManifest.model_validate_json((directory / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise CorruptArtifact(f"{directory / MANIFEST} cannot be read: {error}.") from error
    found = hash_files(directory)
    if found != manifest.files:
        differing = sorted(
            name
            for name in found.keys() | manifest.files.keys()
            if found.get(name) != manifest.files.get(name)
        )
        raise CorruptArtifact(
            f"{directory} is not what its manifest says: {', '.join(differing)} differ."
        )
    return manifest
