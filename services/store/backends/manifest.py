"""The manifest of a version: its file on disk, or what its knowledge file says in its place."""

import re
from pathlib import Path

from pydantic import ValidationError

from services.platform.errors import CorruptArtifact
from services.store.backends.base import VersionManifest, version_not_found
from services.store.knowledge_file import version_manifest

MANIFEST = "version.json"


def manifest_from_knowledge(path: Path, version: str) -> VersionManifest:
    """The manifest that a knowledge file gives, under its own name or a re-indexed version's.

    Raises:
        CorruptArtifact: the file makes another version.
    """
    manifest = version_manifest(path)
    if version != manifest.version:
        if re.fullmatch(rf"{manifest.version}-\d+", version):
            return manifest.model_copy(update={"version": version})
        raise CorruptArtifact(
            f"The knowledge file {path} makes the store version {manifest.version}, not {version}.",
            hint="Restore the knowledge file of the release.",
        )
    return manifest


def read_manifest(path: Path) -> VersionManifest:
    """What `version.json` says. Raises VersionNotFound where it is not there, CorruptArtifact."""
    try:
        return VersionManifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise version_not_found(path.parent.name) from error
    except ValidationError as error:
        raise CorruptArtifact(
            f"{path} cannot be read: {error.errors()[0]['msg']}.",
            hint="Build the version again from its knowledge file.",
        ) from error
