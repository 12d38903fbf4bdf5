"""Training a student: distillation from the labeller, and with it learning to retrieve."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from offline.configs.section import Section
from offline.processor import torch_threads
from offline.student.confidence import admitted, confidence_weights, curriculum_places
from offline.student.items import TrainingItems, numbered
from offline.student.mined_candidates import MinedCandidates
from offline.student.network import StudentNetwork, WeightGroup
from offline.student.retrieval_loss import Batch, RetrievalConfig, RetrievalLoss
from offline.student.vocabulary import PADDING
from services.platform.errors import InvalidConfig

Report = Callable[[int, int, Mapping[str, float]], None]
"""Called with (done, total, figures)."""

_BATCHES_SORTED_TOGETHER = 16
_ENCODED_AT_ONCE = 256
_CLIP = 1.0
_EVERY = 50


class TrainingConfig(Section):
    """How a student is trained.

    Attributes:
        steps: of the optimizer (AdamW; linear warm-up, then linearly to zero).
        batch_size: items a step.
        learning_rate: the largest, of all weights that begin at random; an encoder that the student starts
            from has its own (`student.encoder.learning_rate`).
        token_rate: the same of the token embeddings of a student from scratch, as a multiple: a batch
            holds few of them.
        warm_up: steps until the learning rate is the largest.
        weight_decay: of all weights but the token embeddings.
        dropout: in embeddings and layers.
        temperature: of the soft labels.
        label_weight: of the cross-entropy to the soft labels.
        embedding_weight: of the cosine distance between a projection of the student's pooled vector
            and the labeller's embedding.
        confidence_power: of the labeller's confidence in an item, `1 - H(y) / ln L`, in the weight of
            the item's losses; the weights' mean over all items is 1. 0 leaves them at 1.
        curriculum: share of the steps over which the items that batches are drawn from grow from the
            half of each label's that the labeller is surest of to all; 0 for all from the start.
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
    confidence_power: Annotated[float, Field(ge=0)] = 0.0
    curriculum: Annotated[float, Field(ge=0, le=1)] = 0.0


def train_student(
    model: StudentNetwork,
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
    parts of `RetrievalLoss`, each with its weight. All are means over the batch, in which an item
    weighs what `config.confidence_power` says.

    Args:
        model: the student as it begins.
        ids: token ids of every item.
        items: soft labels and embeddings.
        config: steps, rates, weights.
        retrieval: None for a student that never asks a store.
        seed: of batches and dropout; the same seed gives the same weights on a processor.
        report: called after every step.

    Returns:
        The log: mean losses of every 50 steps.

    Raises:
        InvalidConfig: the losses are no numbers any more.
    """
    soft_labels = _softened(torch.from_numpy(items.soft_labels), config.temperature)
    embeddings = torch.from_numpy(items.embeddings)
    texts = torch.from_numpy(numbered(items.forms))
    weights = torch.from_numpy(confidence_weights(items.soft_labels, config.confidence_power))
    places = curriculum_places(items.soft_labels)
    retrieve = RetrievalLoss(retrieval) if retrieval is not None else None
    mined = None
    if retrieval is not None and retrieval.mined:
        mined = MinedCandidates(texts, embeddings, soft_labels, retrieval)
    log: list[dict[str, float]] = []
    sums: dict[str, float] = {}
    with torch.random.fork_rng(devices=[]), torch_threads(1):
        torch.manual_seed(seed)
        project = nn.Linear(model.hidden, embeddings.shape[1])
        optimizer = _optimizer(model, project, config)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config))
        model.train()
        for step, rows in enumerate(_batches(ids, places, config, seed), start=1):
            if mined is not None and mined.due(step):
                mined.refresh(_encoded(model, ids))
            pooled, logits, queries = model.outputs(*padded([ids[row] for row in rows]))
            taken = torch.from_numpy(rows)
            weighing = weights[taken]
            losses = {
                "label": config.label_weight
                * _cross_entropy(logits / config.temperature, soft_labels[taken], weighing),
                "embedding": config.embedding_weight
                * _cosine_distance(project(pooled), embeddings[taken], weighing),
            }
            if retrieval is not None and retrieve is not None:
                relevance, answer = retrieve(
                    Batch(texts[taken], queries, embeddings[taken], soft_labels[taken]),
                    None if mined is None else mined.of(taken),
                    weighing,
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
            total = loss.item()
            if not math.isfinite(total):
                raise InvalidConfig(
                    f"The training of a student came apart at step {step}: its loss is {total}.",
                    hint="Lower student.training.learning_rate or student.training.token_rate.",
                )
            report(step, config.steps, {"loss": total})
            if step % _EVERY == 0 or step == config.steps:
                count = (step - 1) % _EVERY + 1
                log.append({"step": step} | {name: sums[name] / count for name in sums})
                sums = {}
    model.eval()
    return log


def padded(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, each (b, t) int64, of sequences of at most t tokens."""
    width = max(map(len, sequences))
    ids = np.full((len(sequences), width), PADDING, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


@torch.no_grad()
def _encoded(model: StudentNetwork, ids: Sequence[Sequence[int]]) -> Tensor:
    """(n, query): the unit vectors of all items by a student in training, without its dropout."""
    vectors = torch.empty((len(ids), model.query.out_features))
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    model.eval()
    for start in range(0, len(order), _ENCODED_AT_ONCE):
        rows = order[start : start + _ENCODED_AT_ONCE]
        vectors[rows] = model.outputs(*padded([ids[row] for row in rows])).queries
    model.train()
    return vectors


def _batches(
    ids: Sequence[Sequence[int]], places: NDArray[np.float64], config: TrainingConfig, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Rows of one batch a step; in random order, texts of like length together to pad little.

    While a curriculum lasts, they are drawn anew every few batches, from the items admitted by then.
    """
    random = np.random.default_rng(seed)
    lengths = np.array([len(sequence) for sequence in ids])
    together = config.batch_size * _BATCHES_SORTED_TOGETHER
    left = config.steps
    while True:
        order = random.permutation(len(ids))
        share = admitted(config.steps - left, config.steps, config.curriculum)
        if share < 1:
            order = order[places[order] < share][:together]
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), together):
            chunk = order[start : start + together]
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


def _optimizer(
    model: StudentNetwork, project: nn.Linear, config: TrainingConfig
) -> torch.optim.AdamW:
    groups = [
        *model.weight_groups(config.learning_rate, config.token_rate),
        WeightGroup(list(project.parameters()), config.learning_rate, True),
    ]
    return torch.optim.AdamW(
        [
            {
                "params": group.weights,
                "weight_decay": config.weight_decay if group.decays else 0.0,
                "lr": group.rate,
            }
            for group in groups
        ],
        betas=(0.9, 0.98),
        fused=True,
    )


def _rate(step: int, config: TrainingConfig) -> float:
    rising = (step + 1) / (config.warm_up + 1)
    return min(rising, max(0.0, 1 - step / config.steps))


def _softened(soft_labels: Tensor, temperature: float) -> Tensor:
    softened = soft_labels.clamp_min(1e-8) ** (1 / temperature)
    return softened / softened.sum(1, keepdim=True)


def _cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return -(weights * (targets * functional.log_softmax(logits, dim=1)).sum(1)).mean()


def _cosine_distance(projected: Tensor, embeddings: Tensor, weights: Tensor) -> Tensor:
    return (weights * (1 - functional.cosine_similarity(projected, embeddings))).mean()
