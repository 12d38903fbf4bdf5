"""Where a pretrained model is looked for, and how soon a hub that is away is told."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from offline.teacher.pretrained import model_directory
from services.platform.errors import ModelNotFound

TREE = Path(__file__).parents[3]
NAME = "someone/no-such-model"
SEARCH = f"""
import json, time
import httpx
from huggingface_hub import snapshot_download
from offline.teacher.pretrained import model_directory
from services.platform.errors import ModelNotFound
started = time.monotonic()
try:
    model_directory({NAME!r})
except ModelNotFound as error:
    print(json.dumps([str(error), time.monotonic() - started]))
"""


@contextmanager
def away(how: str) -> Iterator[str]:
    """The address of a hub that cannot be reached: its port is closed, or open and never answers."""
    with socket.socket() as hub:
        hub.bind(("127.0.0.1", 0))
        if how == "silent":
            hub.listen()
        yield f"http://127.0.0.1:{hub.getsockname()[1]}"


def searched(endpoint: str, cache: Path) -> Any:
    """What a fresh process, which reads the hub's address anew, is told, and after how many seconds."""
    outside = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HF_") and not name.lower().endswith("_proxy")
    }
    done = subprocess.run(
        [sys.executable, "-c", SEARCH],
        cwd=TREE,
        env={**outside, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("how", ["closed", "silent"])
def test_a_hub_that_is_away_is_told_in_seconds_and_with_what_was_tried(
    tmp_path: Path, how: str
) -> None:
    with away(how) as endpoint:
        message, seconds = searched(endpoint, tmp_path)
    assert seconds < 30, message
    for part in (
        repr(NAME),
        "no directory here",
        "not in the local cache",
        f"the hub at {endpoint} did not answer",
        "`save_pretrained` and name that directory",
    ):
        assert part in message, message


@pytest.mark.parametrize(
    ("kind", "whole"), [("BertTokenizer", False), ("ByT5Tokenizer", True), ("Nobody", False)]
)
def test_settings_of_a_tokenizer_are_one_where_it_reads_bytes(
    tmp_path: Path, kind: str, whole: bool
) -> None:
    """Of any other class transformers makes a tokenizer of special tokens alone, and raises nothing."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer.py").write_text("")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    if not whole:
        with pytest.raises(ModelNotFound, match="has no tokenizer file"):
            model_directory(str(tmp_path))
        (tmp_path / "vocab.txt").write_text("[PAD]")
    assert model_directory(str(tmp_path)) == tmp_path
