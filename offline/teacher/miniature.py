"""Making the miniature generator: a warm-started language model, trained briefly on the task's texts."""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from offline.processor import rounded
from offline.tasks.prepared import Examples
from offline.teacher.framing import AFTER_NAME, Framing
from offline.teacher.generator import MODEL, SHARED_TOKENS, GeneratorConfig
from offline.teacher.language_model import attention
from offline.teacher.likelihood import likelihood
from offline.teacher.precision import settled
from offline.teacher.warm_start import encoder_tokenizer, warm_start

Report = Callable[[int, int, Mapping[str, float]], None]

IGNORED = -100
# Virtual tokens of a label that there is room for.
_ROOM = 32
# The learning rate rises over this share of the steps and falls to this share of its height.
_WARM_UP, _LAST = 0.1, 0.05


@dataclass(frozen=True, slots=True)
class Miniature:
    """A trained miniature, not saved yet.

    Attributes:
        loss: mean negative log-likelihood a token of the labelled texts over the last epoch.
        steps: optimizer steps.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    loss: float
    steps: int


def make_miniature(
    labelled: Examples,
    unlabelled: Examples,
    label_texts: Mapping[str, str],
    config: GeneratorConfig,
    *,
    pair: bool,
    seed: int,
    report: Report,
) -> Miniature:
    """A causal language model of the task's texts.

    Every labelled text is read `config.epochs` times behind its label's words, which are laid out as
    the soft prompt later is (fillers, words, colon); unlabelled ones stand behind a colon alone. Only
    the text counts in the loss, not the words before it.
    """
    names = list(label_texts.values())
    texts = [*labelled.texts, *(labelled.pairs or []), *unlabelled.texts, *(unlabelled.pairs or [])]
    # `Framing` measures names in the tokens of the new tokenizer, which are those of the encoder's.
    model, tokenizer = warm_start(
        [*texts, *names, AFTER_NAME],
        encoder=config.encoder,
        tokens=config.vocabulary,
        layers=config.layers,
        positions=config.max_tokens + _longest(names, config.encoder) + SHARED_TOKENS,
        dropout=config.dropout,
        seed=seed,
    )
    framing = Framing(tokenizer, pair)
    width = SHARED_TOKENS + framing.name_width(names)
    read = [
        framing.name(label_texts[label], width) + ids
        for label, ids in zip(
            labelled.labels or [],
            framing.encode_all(labelled.texts, labelled.pairs, config.max_tokens),
            strict=True,
        )
    ]
    bare = framing.name("", width)
    other = [
        bare + ids
        for ids in framing.encode_all(unlabelled.texts, unlabelled.pairs, config.max_tokens)
    ]
    loss, steps = _train(model, read, other, width, framing.end, config, seed, report)
    return Miniature(model, tokenizer, loss, steps)


def save_miniature(made: Miniature, directory: Path, precision: str) -> None:
    """Write the Hugging Face directory `model/` of the frozen model, its weights rounded to `precision`."""
    made.model.to(getattr(torch, precision)).save_pretrained(directory / MODEL)
    made.tokenizer.save_pretrained(directory / MODEL)


def _longest(names: Sequence[str], encoder: str) -> int:
    """Room for each name with its colon and one filler: a place for each character, and more where a character is
    several tokens (a Hangul syllable is its letters); room for some virtual tokens, however short names are."""
    tokens = encoder_tokenizer(encoder)(list(names), add_special_tokens=False)["input_ids"]
    return max(_ROOM, *map(len, [*names, *tokens])) + 2


def _train(
    model: PreTrainedModel,
    labelled: list[list[int]],
    unlabelled: list[list[int]],
    width: int,
    end: int,
    config: GeneratorConfig,
    seed: int,
    report: Report,
) -> tuple[float, int]:
    """Train in place; the mean loss a token in the last epoch, and the number of steps."""
    order = random.Random(seed)
    share = min(len(unlabelled), math.ceil(config.unlabelled_texts / config.epochs))
    steps = config.epochs * math.ceil((len(labelled) + share) / config.batch_size)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / (_WARM_UP * steps), max(_LAST, 1 - step / steps), 1.0),
    )
    model.set_attn_implementation(attention(config.device) or "sdpa")
    low = settled(config.precision, config.device) == "bfloat16"
    limit = int(model.config.max_position_embeddings)
    cast(torch.nn.Module, model).to(config.device).train()
    done, mean = 0, math.nan
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(config.epochs):
            total = tokens = 0.0
            texts = [*labelled, *order.sample(unlabelled, share)]
            for rows in _batches(texts, config.batch_size, order):
                ids, targets = _tensors(rows, width, end, limit, config.device)
                with torch.autocast(config.device.split(":")[0], torch.bfloat16, enabled=low):
                    logits = model(input_ids=ids).logits
                said, expected = logits[:, width - 1 : -1], targets[:, width:]
                counts = expected != IGNORED
                logprobs, _ = likelihood(said, expected.clamp_min(0))
                loss = -logprobs[counts].mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                counted = float(counts.sum())
                total, tokens = total + loss.item() * counted, tokens + counted
                done += 1
                report(done, steps, {"loss": loss.item()})
            mean = total / tokens
    model.train(False)
    return mean, done


def _batches(texts: list[list[int]], size: int, order: random.Random) -> Iterator[list[list[int]]]:
    """Batches in random order of texts of like length, so that little is padding."""
    shuffled = order.sample(texts, len(texts))
    batches: list[list[list[int]]] = []
    window = size * 8
    for start in range(0, len(shuffled), window):
        part = sorted(shuffled[start : start + window], key=len)
        batches.extend(part[at : at + size] for at in range(0, len(part), size))
    order.shuffle(batches)
    yield from batches


def _tensors(
    rows: list[list[int]], width: int, end: int, limit: int, device: str
) -> tuple[Tensor, Tensor]:
    """Token ids (n, t) and targets (n, t), which leave out the prompt and the padding; t is at most `limit`."""
    longest = min(rounded(max(map(len, rows))), limit)
    ids = torch.full((len(rows), longest), end)
    targets = torch.full((len(rows), longest), IGNORED)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        targets[row, width : len(tokens)] = ids[row, width : len(tokens)]
    return ids.to(device), targets.to(device)
