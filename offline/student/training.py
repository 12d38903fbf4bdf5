"""Training a student: distillation from the labeller, and with it learning to retrieve."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from offline.configs.section import Section
from offline.student.items import TrainingItems
from offline.student.model import Student
from offline.student.retrieval_loss import Batch, RetrievalConfig, RetrievalLoss
from offline.student.vocabulary import PADDING

Report = Callable[[int, int, Mapping[str, float]], None]
"""Called with (done, total, figures)."""

_BATCHES_SORTED_TOGETHER = 16
_CLIP = 1.0
_EVERY = 50


class TrainingConfig(Section):
    """How a student is trained.

    Attributes:
        steps: of the optimizer (AdamW; linear warm-up, then linearly to zero).
        batch_size: items a step.
        learning_rate: the largest.
        token_rate: the same of the token embeddings, as a multiple: a batch holds few of them.
        warm_up: steps until the learning rate is the largest.
        weight_decay: of all weights but the token embeddings.
        dropout: in embeddings and layers.
        temperature: of the soft labels.
        label_weight: of the cross-entropy to the soft labels.
        embedding_weight: of the cosine distance between a projection of the student's pooled vector
            and the labeller's embedding.
    """

    steps: Annotated[int, Field(ge=1)] = 1000
    batch_size: Annotated[int, Field(ge=2)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    token_rate: Annotated[float, Field(gt=0)] = 3.0
    warm_up: Annotated[int, Field(ge=0)] = 50
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    temperature: Annotated[float, Field(gt=0)] = 1.0
    label_weight: Annotated[float, Field(ge=0)] = 1.0
    embedding_weight: Annotated[float, Field(ge=0)] = 30.0


def train_student(
    model: Student,
    ids: Sequence[Sequence[int]],
    items: TrainingItems,
    config: TrainingConfig,
    retrieval: RetrievalConfig | None,
    *,
    seed: int,
    report: Report,
) -> list[dict[str, float]]:
    """Train `model` in place.

    The loss of a batch is the sum of: cross-entropy of the head to the soft labels, cosine distance of
    the projected pooled vector to the labeller's embedding, and, where `retrieval` is given, the two
    parts of `RetrievalLoss`, each with its weight.

    Args:
        model: its token embeddings are initialised already.
        ids: token ids of every item.
        items: soft labels and embeddings.
        config: steps, rates, weights.
        retrieval: None for a student that never asks a store.
        seed: of batches and dropout; the same seed gives the same weights on a processor.
        report: called after every step.

    Returns:
        The log: mean losses of every 50 steps.
    """
    soft_labels = _softened(torch.from_numpy(items.soft_labels), config.temperature)
    embeddings = torch.from_numpy(items.embeddings)
    texts = torch.from_numpy(np.unique(items.forms, return_inverse=True)[1])
    retrieve = RetrievalLoss(retrieval) if retrieval is not None else None
    log: list[dict[str, float]] = []
    sums: dict[str, float] = {}
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(seed)
        project = nn.Linear(model.shape.sizes.hidden, embeddings.shape[1])
        optimizer = _optimizer(model, project, config)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config))
        model.train()
        for step, rows in enumerate(_batches(ids, config, seed), start=1):
            pooled, logits, queries = model.outputs(*padded([ids[row] for row in rows]))
            taken = torch.from_numpy(rows)
            losses = {
                "label": config.label_weight
                * _cross_entropy(logits / config.temperature, soft_labels[taken]),
                "embedding": config.embedding_weight
                * (1 - functional.cosine_similarity(project(pooled), embeddings[taken])).mean(),
            }
            if retrieval is not None and retrieve is not None:
                relevance, answer = retrieve(
                    Batch(texts[taken], queries, embeddings[taken], soft_labels[taken])
                )
                losses["relevance"] = retrieval.relevance_weight * relevance
                losses["answer"] = retrieval.answer_weight * answer
            loss = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
            optimizer.step()
            schedule.step()
            for name, value in (*losses.items(), ("loss", loss)):
                sums[name] = sums.get(name, 0.0) + value.item()
            report(step, config.steps, {"loss": loss.item()})
            if step % _EVERY == 0 or step == config.steps:
                count = (step - 1) % _EVERY + 1
                log.append({"step": step} | {name: sums[name] / count for name in sums})
                sums = {}
    model.eval()
    return log


@contextmanager
def _one_thread() -> Iterator[None]:
    """Products this small gain next to nothing by a second thread, and sums then come out the same
    whatever the number of processors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def padded(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, each (b, t) int64, of sequences of at most t tokens."""
    width = max(map(len, sequences))
    ids = np.full((len(sequences), width), PADDING, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _batches(
    ids: Sequence[Sequence[int]], config: TrainingConfig, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Rows of one batch a step; in random order, texts of like length together to pad little."""
    random = np.random.default_rng(seed)
    lengths = np.array([len(sequence) for sequence in ids])
    left = config.steps
    while True:
        order = random.permutation(len(ids))
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), config.batch_size * _BATCHES_SORTED_TOGETHER):
            chunk = order[start : start + config.batch_size * _BATCHES_SORTED_TOGETHER]
            chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
            batches += [
                chunk[first : first + config.batch_size]
                for first in range(0, len(chunk), config.batch_size)
            ]
        for position in random.permutation(len(batches)):
            if left == 0:
                return
            left -= 1
            yield batches[position]


def _optimizer(model: Student, project: nn.Linear, config: TrainingConfig) -> torch.optim.AdamW:
    embeddings = list(model.tokens.parameters())
    others = [weight for name, weight in model.named_parameters() if not name.startswith("tokens.")]
    groups = [
        {"params": [*others, *project.parameters()], "weight_decay": config.weight_decay},
        # Decay would wear away the rows of tokens that few batches hold.
        {
            "params": embeddings,
            "weight_decay": 0.0,
            "lr": config.learning_rate * config.token_rate,
        },
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))


def _rate(step: int, config: TrainingConfig) -> float:
    rising = (step + 1) / (config.warm_up + 1)
    return min(rising, max(0.0, 1 - step / config.steps))


def _softened(soft_labels: Tensor, temperature: float) -> Tensor:
    softened = soft_labels.clamp_min(1e-8) ** (1 / temperature)
    return softened / softened.sum(1, keepdim=True)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -(targets * functional.log_softmax(logits, dim=1)).sum(1).mean()
