"""Tuning a sequence classifier on the run's rows: all of its weights, or low-rank updates of them.

LoRA is Hu et al. 2021, by PEFT. The number of epochs is fixed: nothing is held out to stop by, since the rows are
few and cross-fitting says what comes of it.
"""

import random
import warnings
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from offline.teacher.classifier import (
    ClassifierConfig,
    SequenceClassifier,
    columns_of,
    encode,
    load_sequence_model,
    logits_of,
)
from offline.teacher.encoder import Progress
from offline.teacher.pretrained import model_directory
from offline.teacher.text_scorer import LabelledRows
from services.platform.errors import InvalidConfig

_WARM_UP = 0.1
_RATES = {"full": 5e-5, "lora": 5e-4}


def fit_classifier(
    rows: LabelledRows,
    label_texts: Mapping[str, str],
    config: ClassifierConfig,
    *,
    seed: int,
    progress: Progress,
) -> SequenceClassifier:
    """Tune the classifier that `config` names on labelled rows, or take it as it is.

    Args:
        rows: what it learns from; nothing with `tuning: none`.
        label_texts: each label's name and what describes it.
        config: which model, and how it is tuned.
        seed: of the new head, the batches and the dropout.
        progress: called with (done, total) steps.

    Raises:
        ModelNotFound: see `model_directory`.
        InvalidConfig: it is no classifier, not one for these labels, or PEFT knows no layers to update.
    """
    if config.tuning == "none":
        model, tokenizer, _ = load_sequence_model(model_directory(config.model), None, config)
        return SequenceClassifier(model, tokenizer, columns_of(model, label_texts, config), config)
    labels = list(label_texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, tokenizer, new = load_sequence_model(model_directory(config.model), labels, config)
        if config.tuning == "lora":
            model = with_updates(model, _updates(model, new, config), config)
        _tune(model, tokenizer, rows, config, random.Random(seed), progress)
    return SequenceClassifier(model, tokenizer, range(len(labels)), config)


def _updates(model: PreTrainedModel, new: list[str], config: ClassifierConfig) -> Any:
    """PEFT's description of the updates.

    Args:
        model: the classifier.
        new: modules that begin with random weights: they have to be learnt, and kept, as the head is.
        config: rank, targets.
    """
    from peft import LoraConfig

    heads = [
        name
        for name, part in model.named_children()
        if name != model.base_model_prefix and any(True for _ in part.parameters())
    ]
    return LoraConfig(
        task_type="SEQ_CLS",
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=None if config.lora_targets is None else list(config.lora_targets),
        modules_to_save=sorted({*heads, *_outside_of(new, heads)}),
        fan_in_fan_out=any(isinstance(part, Conv1D) for part in model.modules()),
    )


def _outside_of(names: list[str], others: list[str]) -> list[str]:
    """The names of modules that are not parts of the others."""
    return [name for name in names if not any(name.startswith(f"{other}.") for other in others)]


def with_updates(model: PreTrainedModel, updates: Any, config: ClassifierConfig) -> PreTrainedModel:
    """The model with PEFT's layers in it; what is learnt is float32, whatever the frozen weights are.

    Raises:
        InvalidConfig: PEFT knows no layers to update in such a model.
    """
    from peft import get_peft_model

    try:
        with warnings.catch_warnings():
            # PEFT asks transformers by an old name.
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
            changed: PreTrainedModel = get_peft_model(model, updates)
    except ValueError as error:
        raise InvalidConfig(
            f"LoRA finds no layers to update in {config.model}: {error}",
            hint="Name them under labeller.classifier.lora_targets.",
        ) from error
    for tensor in changed.parameters():
        if tensor.requires_grad:
            tensor.data = tensor.data.float()
    return changed


def _tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: LabelledRows,
    config: ClassifierConfig,
    order: random.Random,
    progress: Progress,
) -> None:
    """Train in place."""
    size = config.batch_size
    steps = config.epochs * -(-len(rows) // size)
    learnt = [tensor for tensor in model.parameters() if tensor.requires_grad]
    rate = config.learning_rate or _RATES[config.tuning]
    optimizer = torch.optim.AdamW(learnt, lr=rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (_WARM_UP * steps), 1.0, 1 - step / steps)
    )
    cast(torch.nn.Module, model).train()
    done = 0
    for _ in range(config.epochs):
        shuffled = order.sample(range(len(rows)), len(rows))
        for start in range(0, len(rows), size):
            part = rows.take(np.array(shuffled[start : start + size]))
            pairs = None if part.pairs is None else list(part.pairs)
            batch = encode(model, tokenizer, list(part.texts), pairs, config)
            gold = torch.from_numpy(part.gold).to(config.device)
            loss = torch.nn.functional.cross_entropy(logits_of(model, batch, config), gold)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            progress(done, steps)
