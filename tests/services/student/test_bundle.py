"""A bundle is refused when its files are not those that it was written for."""

from pathlib import Path

import pytest
import tiny_release

from services.platform.errors import CorruptArtifact, ModelNotFound
from services.student.bundle import load_bundle


def test_a_bundle_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = tiny_release.write_bundle(tmp_path / "bundle")
    assert load_bundle(tmp_path / "bundle").manifest == written
    assert written.labels == tiny_release.LABELS
    assert written.mixing.k == 4


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_changed_encoder_file_is_corrupt(tmp_path: Path, name: str) -> None:
    tiny_release.write_bundle(tmp_path / "bundle")
    path = tmp_path / "bundle" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(CorruptArtifact, match="fingerprint"):
        load_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "bundle.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    tiny_release.write_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / name).unlink()
    with pytest.raises(CorruptArtifact, match=name.replace(".", r"\.")):
        load_bundle(tmp_path / "bundle")


def test_a_missing_directory_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no student bundle"):
        load_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ('"format": 1', '"format": 2'),
        ('"task"', '"job"'),
        ('"k": 4', '"k": 0'),
        ('"printer",', ""),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_corrupt(tmp_path: Path, was: str, becomes: str) -> None:
    tiny_release.write_bundle(tmp_path / "bundle")
    path = tmp_path / "bundle" / "bundle.json"
    text = path.read_text()
    assert was in text
    path.write_text(text.replace(was, becomes, 1))
    with pytest.raises(CorruptArtifact, match=r"bundle\.json cannot be read"):
        load_bundle(tmp_path / "bundle")
