"""Soft prompts on disk, in PEFT's file format, so that PEFT loads them too.

PEFT's prompt tuning holds one prompt; its multitask prompt tuning (Wang et al. 2023) holds one a task, as
`embeddings * (columns[task] @ rows[task])`. With embeddings of ones and the identity as columns, the rows
of a task *are* its prompt, so the prompts of any number of labels fit into that format without loss.

For an encoder-decoder PEFT makes the table twice as long unless told otherwise, and puts the second half
before the decoder's text. Ours stands before the encoder alone, so the files say
`num_transformer_submodules: 1`, and files that say otherwise are refused.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from services.platform.errors import CorruptArtifact, IncompatibleArtifacts

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_LABELS = "labels.json"


def save_prompts(
    prompts: Tensor,
    labels: Sequence[str],
    base_model: str,
    directory: Path,
    *,
    task_type: str = "CAUSAL_LM",
) -> None:
    """Write (labels, t, d) prompt embeddings: `adapter_model.safetensors`, `adapter_config.json`, `labels.json`.

    `labels.json` names the label of each task id; `task_type` is the model's (`PromptedModel.task_type`).
    """
    count, tokens, dimensions = prompts.shape
    arrays = {
        "prompt_embeddings": torch.ones(tokens, dimensions),
        "prefix_task_cols": torch.eye(tokens).repeat(count, 1, 1),
        "prefix_task_rows": prompts.detach().float().cpu().contiguous(),
    }
    config = {
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "num_attention_heads": None,
        "num_layers": None,
        "num_ranks": tokens,
        "num_tasks": count,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": tokens,
        "peft_type": "MULTITASK_PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",
        "task_type": task_type,
        "token_dim": dimensions,
    }
    save_file(arrays, directory / WEIGHTS)
    (directory / CONFIG).write_text(json.dumps(config, indent=1))
    (directory / _LABELS).write_text(json.dumps(list(labels), indent=1))


def load_prompts(directory: Path, labels: Sequence[str]) -> Tensor:
    """(labels, t, d) float32 prompt embeddings that `save_prompts` wrote.

    Raises:
        CorruptArtifact: files are missing or damaged.
        IncompatibleArtifacts: they are for other labels, or hold a prompt for a decoder too.
    """
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        named = json.loads((directory / _LABELS).read_text(encoding="utf-8"))
        arrays = load_file(directory / WEIGHTS)
        products = arrays["prefix_task_cols"] @ arrays["prefix_task_rows"]
        prompts: Tensor = arrays["prompt_embeddings"] * products
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CorruptArtifact(
            f"The soft prompt in {directory} cannot be read: {error!r}."
        ) from error
    if named != list(labels) or len(prompts) != len(labels):
        raise IncompatibleArtifacts(
            f"The soft prompt in {directory} is for the labels {', '.join(named[:5])} …,"
            f" the task has {', '.join(list(labels)[:5])} …",
            hint="Tune a prompt for this task.",
        )
    if config.get("num_transformer_submodules") != 1:
        raise IncompatibleArtifacts(
            f"The soft prompt in {directory} has tokens for the decoder too (or does not say that it has none).",
            hint="Train it with num_transformer_submodules=1: one prompt, before the encoder.",
        )
    return prompts.contiguous()
