"""Hashes lie in manifests, and give releases and versions their names: their form never changes."""

from pathlib import Path

from services.platform.file_hash import hash_file, length_and_hash

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_hash_is_the_plain_sha256_of_the_bytes_in_hexadecimal_digits(tmp_path: Path) -> None:
    """The example of FIPS 180-2, B.1."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert hash_file(path) == SHA256_OF_ABC
    assert length_and_hash(path) == (3, SHA256_OF_ABC)
