"""A sequence classifier as labeller: any of Hugging Face's, and how texts and pairs are read with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from offline.configs.section import Section
from offline.tasks.normal_form import letters_and_digits
from offline.teacher.encoder import Progress
from offline.teacher.language_model import attention, loading
from offline.teacher.soft_labels import joined
from offline.teacher.text_scorer import batches
from services.platform.errors import InvalidConfig


class ClassifierConfig(Section):
    """Which sequence classifier, and how it is tuned.

    Attributes:
        model: hub name or directory of a model that AutoModelForSequenceClassification loads; any BERT-like,
            causal or T5-like one does, with a new head.
        tuning: `full` for all weights, `lora` for low-rank updates and the head, `none` for a model that is
            a classifier for the task's labels already (its `id2label` names them).
        epochs: passes over the training rows.
        learning_rate: its maximum; none for 5e-5 (full) or 5e-4 (LoRA). It rises over the first tenth of the
            steps and falls to zero.
        weight_decay: AdamW's.
        batch_size: rows in one pass, in tuning and in reading.
        max_tokens: longer texts are cut.
        lora_rank, lora_alpha, lora_dropout: of the updates.
        lora_targets: names of the layers that are updated; none for PEFT's choice for the architecture.
        device: a torch device.
        precision: `float32`, or `bfloat16`; with LoRA the frozen weights are kept in it.
    """

    model: str
    tuning: Literal["full", "lora", "none"] = "full"
    epochs: Annotated[int, Field(ge=1)] = 10
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    batch_size: Annotated[int, Field(ge=1)] = 16
    max_tokens: Annotated[int, Field(ge=4)] = 128
    lora_rank: Annotated[int, Field(ge=1)] = 8
    lora_alpha: Annotated[int, Field(ge=1)] = 16
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    lora_targets: tuple[str, ...] | None = None
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"


class SequenceClassifier:
    """A classifier and its tokenizer; a `TextModel`.

    Attributes:
        model: the classifier, with or without PEFT's layers in it.
        tokenizer: its tokenizer.
        columns: (labels,) which of its outputs each label is.
        config: how it is run.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        columns: Sequence[int],
        config: ClassifierConfig,
    ) -> None:
        model.train(False).requires_grad_(False)
        self.model = model
        self.tokenizer = tokenizer
        self.columns = tuple(columns)
        self.config = config
        self.parameters = sum(tensor.numel() for tensor in model.parameters())

    @torch.inference_mode()
    def scores(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Logits (n, labels) float32."""
        output = np.empty((len(texts), len(self.columns)), dtype=np.float32)
        done = 0
        lengths = [len(text) for text in joined(texts, pairs)]
        for rows in batches(lengths, self.config.batch_size):
            logits = logits_of(self.model, self._encode(texts, pairs, rows), self.config)
            output[rows] = logits[:, self.columns].cpu().numpy()
            done += len(rows)
            if progress is not None:
                progress(done, len(texts))
        return output

    def _encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None, rows: NDArray[np.int64]
    ) -> Mapping[str, Tensor]:
        return encode(
            self.model,
            self.tokenizer,
            [texts[row] for row in rows],
            None if pairs is None else [pairs[row] for row in rows],
            self.config,
        )


def encode(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    pairs: list[str] | None,
    config: ClassifierConfig,
) -> Mapping[str, Tensor]:
    """A padded batch on the device.

    Pairs go in as the tokenizer joins them; where it puts nothing between them, they are one text of two lines.
    """
    if pairs is not None and tokenizer.sep_token is None and not _ends_texts(tokenizer):
        texts, pairs = joined(texts, pairs), None
    encoded: Mapping[str, Tensor] = tokenizer(
        texts,
        pairs,
        padding=True,
        truncation=True,
        max_length=config.max_tokens,
        # A general tokenizer numbers the texts of a pair for models that do not read such numbers.
        return_token_type_ids=getattr(model.config, "type_vocab_size", 0) > 1,
        return_tensors="pt",
    ).to(config.device)
    return encoded


def load_sequence_model(
    where: Path, labels: list[str] | None, config: ClassifierConfig
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """Model, tokenizer, and the names of the modules whose weights are not in the files but new.

    With `labels` the model has a head for them, new where the files hold none of that size.

    Raises:
        ModelNotFound: files are missing or damaged.
        InvalidConfig: it comes as no classifier, or without labels, is none that was trained.
    """
    with loading(where):
        settings = AutoConfig.from_pretrained(where, trust_remote_code=False, local_files_only=True)
    if type(settings) not in AutoModelForSequenceClassification._model_mapping:
        raise InvalidConfig(
            f"{where} is of the type {settings.model_type!r}, which comes as no sequence classifier.",
            hint="Name a model that AutoModelForSequenceClassification loads under labeller.classifier.model.",
        )
    head: dict[str, Any] = {}
    if labels is not None:
        names = dict(enumerate(labels))
        head = {
            "num_labels": len(labels),
            "id2label": names,
            "label2id": {name: place for place, name in names.items()},
            "ignore_mismatched_sizes": True,
        }
    # All weights are tuned in float32: steps are lost in the rounding of bfloat16.
    low = config.precision == "bfloat16" and config.tuning != "full"
    level = logging.get_verbosity()
    # A new head is no news.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with loading(where):
            model, found = AutoModelForSequenceClassification.from_pretrained(
                where,
                dtype=torch.bfloat16 if low else torch.float32,
                attn_implementation=attention(config.device),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **head,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                where, trust_remote_code=False, local_files_only=True
            )
    finally:
        logging.set_verbosity(level)
    if labels is None and found["missing_keys"]:
        raise InvalidConfig(
            f"{where} is no trained classifier: it has no {', '.join(sorted(found['missing_keys'])[:3])}.",
            hint="Set labeller.classifier.tuning to full or lora.",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.padding_side = "right"
    cast(torch.nn.Module, model).to(config.device)
    return model, tokenizer, sorted({key.rpartition(".")[0] for key in found["missing_keys"]})


def columns_of(
    model: PreTrainedModel, label_texts: Mapping[str, str], config: ClassifierConfig
) -> list[int]:
    """Which output each label is, by its name or by what describes it.

    Names are compared as they are, and on letters and digits where that finds none (`C++` and `C#` have the
    same letters).

    Raises:
        InvalidConfig: a label has no output, or two of them have the same.
    """
    names = {int(at): str(name) for at, name in (model.config.id2label or {}).items()}
    exact = {name: at for at, name in names.items()}
    loose = {letters_and_digits(name): at for at, name in names.items()}
    found: dict[str, int] = {}
    for label, text in label_texts.items():
        places = [exact.get(label), exact.get(text)]
        places += [loose.get(letters_and_digits(name)) for name in (label, text)]
        if taken := [place for place in places if place is not None]:
            found[label] = taken[0]
    lacking = [label for label in label_texts if label not in found]
    if lacking:
        raise InvalidConfig(
            f"{config.model} is no classifier for the task's labels: it lacks {', '.join(lacking[:5])}, and"
            f" has {', '.join(list(names.values())[:5])}.",
            hint="Name the labels in id2label of its config.json, or set labeller.classifier.tuning to full.",
        )
    labels = {at: label for label, at in found.items()}
    for label, at in found.items():
        if labels[at] != label:
            raise InvalidConfig(
                f"The labels {label} and {labels[at]} are both taken for the output {names[at]!r} of {config.model}.",
                hint="Name the labels in id2label of its config.json, each as the task has it.",
            )
    return list(found.values())


def logits_of(
    model: PreTrainedModel, batch: Mapping[str, Tensor], config: ClassifierConfig
) -> Tensor:
    """(n, outputs) float32."""
    low = config.precision == "bfloat16"
    with torch.autocast(config.device.split(":")[0], torch.bfloat16, enabled=low):
        logits: Tensor = model(**batch).logits
    return logits.float()


def _ends_texts(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts an end token after each text of a pair (T5's does)."""
    ids = cast(list[int], tokenizer("a", "a")["input_ids"])
    return ids.count(tokenizer.eos_token_id) > 1
