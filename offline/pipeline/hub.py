"""What the Hugging Face hub and its local cache have under a name; no weights are loaded or downloaded."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

# Of the loader itself, so that what is asked here is what it would load.
from offline.teacher.pretrained import (
    PACKAGED,
    cached_model,
    may_hold_tokenizer,
    model_directory,
    not_found,
)
from services.platform.errors import ModelNotFound

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo, ModelInfo

_SECONDS = 5.0


def of_the_hub(name: str) -> bool:
    """Whether `model_directory` looks for a model of that name in the cache and on the hub."""
    on_disk = name.startswith((".", "/", "~")) or Path(name).expanduser().is_dir()
    return name != PACKAGED and not on_disk


@cache
def current_model(name: str) -> "ModelInfo":
    """Commit and file names of what the hub has now; raises whatever its client does."""
    from huggingface_hub import HfApi

    return HfApi().model_info(name, timeout=_SECONDS)


@cache
def current_data_set(name: str) -> "DatasetInfo":
    """The same of a data set."""
    from huggingface_hub import HfApi

    return HfApi().dataset_info(name, timeout=_SECONDS)


def check_model(name: str) -> None:
    """Refuse a name that `model_directory` would refuse; one that it would download is asked for on the hub.

    Raises:
        ModelNotFound: it is neither here nor on the hub, the hub does not answer or does not give it to this user,
            or what there is holds no safetensors file, or no tokenizer.
    """
    if not of_the_hub(name) or cached_model(name) is not None:
        model_directory(name)
    else:
        _check_on_hub(name)


def _check_on_hub(name: str) -> None:
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        current = current_model(name)
        if current.gated:
            _ask_for_access(name)
    except HFValidationError:
        model_directory(name)  # It asks nobody either, and says what a name has to be.
        return
    except HfHubHTTPError as error:
        raise not_found(name, f"the hub answered {error}") from error
    except Exception as error:
        reason = f"the hub at {constants.ENDPOINT} did not answer ({error})"
        raise not_found(name, reason) from error
    files = [Path(file.rfilename) for file in current.siblings or ()]
    top = [path.name for path in files if len(path.parts) == 1]
    missing = [] if "config.json" in top else ["config.json"]
    if not may_hold_tokenizer(top):
        missing.append("tokenizer")
    if not any(file.endswith(".safetensors") for file in top):
        missing.append("safetensors")
    if missing:
        raise ModelNotFound(
            f"The model {name!r} on the hub has no {' and no '.join(missing)} file.",
            hint="Expected a Hugging Face model with its tokenizer; weights are read from safetensors only.",
        )


def _ask_for_access(name: str) -> None:
    """Everybody may see what a gated model holds, and not everybody may download it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=_SECONDS)
