"""A tuned sequence classifier on disk: a Hugging Face directory, or an adapter in PEFT's format."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from offline.teacher.classifier import ClassifierConfig, SequenceClassifier, load_sequence_model
from offline.teacher.classifier_tuning import with_updates
from offline.teacher.pretrained import model_directory
from services.platform.errors import CorruptArtifact

FILES = "classifier"
"""Directory of a tuned classifier in that of the stage."""
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def classifier_identity(classifier: SequenceClassifier, temperature: float) -> str:
    """Name of a labeller: its model, how it was tuned, and 12 hex digits of the hash of what was fitted."""
    digest = hashlib.sha256(json.dumps(classifier.columns).encode())
    for name, tensor in _fitted(classifier):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    digest.update(np.float64(temperature).tobytes())
    kind = {"full": "tuned", "lora": "lora", "none": "classifier"}[classifier.config.tuning]
    return f"{Path(classifier.config.model).name}/{kind}-{digest.hexdigest()[:12]}"


def save_classifier(classifier: SequenceClassifier, directory: Path) -> None:
    """Write what tuning made into `directory / FILES`; nothing for a model that is used as it is."""
    config, files = classifier.config, directory / FILES
    if config.tuning == "none":
        return
    if config.tuning == "full":
        classifier.model.save_pretrained(files)
        classifier.tokenizer.save_pretrained(files)
        return
    cast(Any, classifier.model).save_pretrained(files, save_embedding_layers=False)
    # PEFT's card and file name the directory of this machine, and its sets come in any order.
    (files / "README.md").unlink(missing_ok=True)
    found = json.loads((files / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    found["base_model_name_or_path"] = config.model
    for name in ("target_modules", "modules_to_save"):
        found[name] = sorted(found[name])
    (files / ADAPTER_CONFIG).write_text(
        json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )


def load_classifier(
    directory: Path, labels: Sequence[str], columns: Sequence[int], config: ClassifierConfig
) -> SequenceClassifier:
    """The classifier of a finished labeller stage.

    Args:
        directory: of the stage.
        labels: label names.
        columns: which of its outputs each label is.
        config: how it was made, and how it is run.

    Raises:
        ModelNotFound: the model that it was made of is not here any more.
        CorruptArtifact: the stage's files are missing or damaged.
    """
    files = directory / FILES
    if config.tuning == "none":
        model, tokenizer, _ = load_sequence_model(model_directory(config.model), None, config)
        return SequenceClassifier(model, tokenizer, columns, config)
    if not any(files.glob("*.safetensors")):
        raise CorruptArtifact(f"{files} holds no tuned classifier.")
    if config.tuning == "full":
        model, tokenizer, _ = load_sequence_model(files, list(labels), config)
        return SequenceClassifier(model, tokenizer, columns, config)
    from peft import LoraConfig, set_peft_model_state_dict

    # What begins with random weights is overwritten; nobody else's draws shall hang on them.
    with torch.random.fork_rng(devices=[]):
        where = model_directory(config.model)
        model, tokenizer, _ = load_sequence_model(where, list(labels), config)
    try:
        updates = LoraConfig.from_pretrained(str(files))
        with torch.random.fork_rng(devices=[]):
            model = with_updates(model, updates, config)
        set_peft_model_state_dict(model, load_file(files / ADAPTER, device=config.device))
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise CorruptArtifact(f"The adapter in {files} cannot be read: {error}.") from error
    return SequenceClassifier(model, tokenizer, columns, config)


def _fitted(classifier: SequenceClassifier) -> list[tuple[str, Tensor]]:
    """Names and values of what tuning changed."""
    tuning = classifier.config.tuning
    if tuning == "full":
        return sorted(classifier.model.state_dict().items())
    if tuning == "none":
        return []
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(classifier.model, save_embedding_layers=False)
    return sorted(found.items())
