"""What a release says of itself, and the hashes of what it is made of."""

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from services.platform.errors import CorruptArtifact, ReleasePruned, ReleasePurged
from services.platform.file_hash import Sha256, hash_file

MANIFEST = "manifest.json"
BUNDLE = "bundle"
KNOWLEDGE = "knowledge.parquet"
SOFT_LABELS = "soft_labels.npy"
LEXICAL = "lexical.safetensors"
EDITED = "edited.safetensors"


class ReleaseManifest(BaseModel):
    """`manifest.json` of a release.

    Attributes:
        format: 1.
        release: `r-` and 12 hexadecimal digits of the hash of what it is made of.
        task: the task that it answers.
        labels: in the order of the soft labels; the student's labels come first.
        created_at: when it was added to a releases directory, ISO 8601 in UTC; null before.
        store_version: the store version that its student searches.
        encoder_fingerprint: of the student that wrote that version's vectors.
        items: knowledge items, rows of the soft-label matrix.
        knowledge_sha256: of `knowledge.parquet`.
        soft_labels_sha256: of `soft_labels.npy`.
        lexical_sha256: of `lexical.safetensors`; null for a release without a lexical index.
        edited_sha256: of `edited.safetensors`; null for a release that no edit adds to.
        bundle_sha256: of the bundle's files, see `hash_directory`.
        metrics: free figures, shown with it.
        gate: why it should not be activated; empty for a release that passed.
        balances: for each label that the student does not know, how far the store's answer is corrected for the
            few items that it has, 0 to 1; see `services.student.label_balance`.
        edits: that persons made to its knowledge, oldest first; see `offline.knowledge.journal`.
        purged_at: when its knowledge was deleted on request (ISO 8601, UTC); it can never serve again.
        pruned_at: when its files were given up for their room (ISO 8601, UTC); it serves again once it is added
            again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    release: Annotated[str, Field(pattern=r"^r-[0-9a-f]{12}$")]
    task: str
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    created_at: str | None = None
    store_version: str
    encoder_fingerprint: str
    items: Annotated[int, Field(ge=0)]
    knowledge_sha256: Sha256
    soft_labels_sha256: Sha256
    lexical_sha256: Sha256 | None = None
    edited_sha256: Sha256 | None = None
    bundle_sha256: Sha256
    metrics: dict[str, Any] = {}
    gate: tuple[str, ...] = ()
    balances: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    edits: tuple[str, ...] = ()
    purged_at: str | None = None
    pruned_at: str | None = None

    @model_serializer(mode="wrap")
    def _without_what_older_services_do_not_know(
        self, handler: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        """A release without a lexical index, or what edits add, is written as it was before there were any."""
        told: dict[str, Any] = handler(self)
        for name in ("lexical_sha256", "edited_sha256"):
            if getattr(self, name) is None:
                told.pop(name, None)
        return told

    @property
    def can_serve(self) -> bool:
        """Whether its files are meant to be there: neither purged nor given up."""
        return self.purged_at is None and self.pruned_at is None


def release_id(
    *,
    task: str,
    labels: Sequence[str],
    store_version: str,
    knowledge_sha256: str,
    soft_labels_sha256: str,
    bundle_sha256: str,
    lexical_sha256: str | None = None,
    edited_sha256: str | None = None,
    balances: Sequence[float] = (),
) -> str:
    """`r-` and 12 digits of the content hash: the same parts are the same release."""
    parts = [
        task,
        list(labels),
        store_version,
        knowledge_sha256,
        soft_labels_sha256,
        bundle_sha256,
        *([list(balances)] if balances else []),
        *([lexical_sha256] if lexical_sha256 else []),
        *([["edited", edited_sha256]] if edited_sha256 else []),
    ]
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()
    return f"r-{digest[:12]}"


def write_release_manifest(
    directory: Path,
    *,
    task: str,
    labels: Sequence[str],
    store_version: str,
    encoder_fingerprint: str,
    items: int,
    metrics: Mapping[str, Any],
    gate: Sequence[str] = (),
    balances: Sequence[float] = (),
    edits: Sequence[str] = (),
) -> ReleaseManifest:
    """Hash the release's files, which must be in `directory` already, and write its manifest there.

    The file depends on the arguments and the files alone: `created_at` stays null until the release
    is added to a releases directory.
    """
    hashes = {
        "knowledge_sha256": hash_file(directory / KNOWLEDGE),
        "soft_labels_sha256": hash_file(directory / SOFT_LABELS),
        "bundle_sha256": hash_directory(directory / BUNDLE),
    }
    lexical, edited = _hash_if_there(directory / LEXICAL), _hash_if_there(directory / EDITED)
    manifest = ReleaseManifest(
        release=release_id(
            task=task,
            labels=labels,
            store_version=store_version,
            balances=balances,
            lexical_sha256=lexical,
            edited_sha256=edited,
            **hashes,
        ),
        task=task,
        labels=tuple(labels),
        store_version=store_version,
        encoder_fingerprint=encoder_fingerprint,
        items=items,
        metrics=dict(metrics),
        gate=tuple(gate),
        balances=tuple(balances),
        edits=tuple(edits),
        lexical_sha256=lexical,
        edited_sha256=edited,
        **hashes,
    )
    (directory / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    return manifest


def read_release_manifest(directory: Path) -> ReleaseManifest:
    """The manifest in `directory`; the files beside it are not read.

    Raises:
        CorruptArtifact: it is missing or cannot be read.
    """
    path = directory / MANIFEST
    try:
        return ReleaseManifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise CorruptArtifact(f"{path} cannot be read: {error}") from error


def check_release(directory: Path) -> ReleaseManifest:
    """The manifest in `directory`, every file that it names hashed and compared.

    Raises:
        ReleasePurged, ReleasePruned: its files were given up.
        CorruptArtifact: a file is missing or not the one that the manifest was written for.
    """
    manifest = read_release_manifest(directory)
    refuse_given_up(manifest)
    try:
        found = {
            KNOWLEDGE: (hash_file(directory / KNOWLEDGE), manifest.knowledge_sha256),
            SOFT_LABELS: (hash_file(directory / SOFT_LABELS), manifest.soft_labels_sha256),
            BUNDLE: (hash_directory(directory / BUNDLE), manifest.bundle_sha256),
            LEXICAL: (_hash_if_there(directory / LEXICAL), manifest.lexical_sha256),
            EDITED: (_hash_if_there(directory / EDITED), manifest.edited_sha256),
        }
    except OSError as error:
        raise CorruptArtifact(f"The release in {directory} is not whole: {error}.") from error
    differing = [name for name, (is_now, was) in found.items() if is_now != was]
    expected = release_id(
        task=manifest.task,
        labels=manifest.labels,
        store_version=manifest.store_version,
        knowledge_sha256=manifest.knowledge_sha256,
        soft_labels_sha256=manifest.soft_labels_sha256,
        bundle_sha256=manifest.bundle_sha256,
        lexical_sha256=manifest.lexical_sha256,
        edited_sha256=manifest.edited_sha256,
        balances=manifest.balances,
    )
    if manifest.release != expected:
        differing.append("release")
    if differing:
        raise CorruptArtifact(
            f"The release in {directory} is not what its manifest says: "
            f"{', '.join(differing)} differ.",
            hint="Build it again, or roll back to another release.",
        )
    return manifest


def refuse_purged(manifest: ReleaseManifest) -> None:
    """Raises ReleasePurged where the release's knowledge was deleted on request."""
    if manifest.purged_at is not None:
        raise ReleasePurged(
            f"The release {manifest.release} cannot serve again: a text was purged from the task's "
            f"knowledge at {manifest.purged_at}, and this release held it.",
            hint="`retrikt release list` shows those that can be activated.",
        )


def refuse_given_up(manifest: ReleaseManifest) -> None:
    """Raises ReleasePurged, or ReleasePruned where a clean-up took the release's files."""
    refuse_purged(manifest)
    if manifest.pruned_at is not None:
        raise ReleasePruned(
            f"The release {manifest.release} cannot serve: a clean-up took its files and its store version away "
            f"at {manifest.pruned_at}.",
            hint="Restore a snapshot of it, or rebuild it; `retrikt release list` shows what can be activated.",
        )


def _hash_if_there(path: Path) -> str | None:
    return hash_file(path) if path.exists() else None


def hash_directory(directory: Path) -> str:
    """Hash of the names and contents of all files below `directory`.

    Raises:
        FileNotFoundError: there is no such directory.
    """
    if not directory.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(directory))
    files = {
        path.relative_to(directory).as_posix(): hash_file(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
