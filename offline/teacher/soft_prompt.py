"""The soft prompt: virtual tokens for each label in front of a frozen model, tuned by likelihood."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from offline.configs.section import Section
from offline.processor import rounded
from offline.teacher.generator import Generator, check_room
from offline.teacher.policy import assess
from offline.teacher.prompted import PromptedModel
from offline.teacher.run_log import Log

Report = Callable[[int, int, Mapping[str, float]], None]


class SoftPromptConfig(Section):
    """How the soft prompt is tuned.

    Attributes:
        label_tokens: virtual tokens of each label, which start as its words and a colon; 0 for as many as the
            longest name needs; of longer names, their first words. Shared ones come before them.
        epochs: most passes over the labelled texts.
        patience: epochs without a better likelihood of the held-out texts before it stops.
        held_out: share of the labelled texts, at least one a label, that decide when to stop.
        batch_size: texts in one forward pass.
        accumulate: forward passes in one step.
        gradient_checkpointing: compute the model's layers again for the gradient instead of keeping
            what they computed: less memory, a third more time.
        learning_rate: of a label's own tokens.
        shared_learning_rate: of the shared tokens and of the offset that all labels share.
        relative_rates: take both rates times the root mean square of the prompt that tuning starts from.
            Embeddings are of very different size: their standard deviation begins at 1 in T5 and at
            0.02 in GPT-2 and Llama.
    """

    label_tokens: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(ge=0)] = 8
    patience: Annotated[int, Field(ge=1)] = 2
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    batch_size: Annotated[int, Field(ge=1)] = 64
    accumulate: Annotated[int, Field(ge=1)] = 1
    gradient_checkpointing: bool = False
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    shared_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    relative_rates: bool = False


class SoftPrompt(nn.Module):
    """Prompt embeddings of all labels: `[shared, own of the label + offset]`.

    The offset is the same for every label. It starts at zero and lets what all labels have to learn
    be learnt from all of their samples.
    """

    def __init__(self, shared: Tensor, own: Tensor) -> None:
        """Start from (s, d) shared tokens and (labels, t, d) tokens of each label."""
        super().__init__()
        self.shared = nn.Parameter(shared.detach().clone().float())
        self.own = nn.Parameter(own.detach().clone().float())
        self.offset = nn.Parameter(torch.zeros_like(self.own[0]))

    def forward(self) -> Tensor:
        """(labels, s + t, d) prompt embeddings."""
        shared = self.shared.expand(len(self.own), *self.shared.shape)
        return torch.cat([shared, self.own + self.offset], dim=1)

    def fixed(self) -> Tensor:
        """A copy of the prompt embeddings that does not change with the parameters."""
        return self.forward().detach().clone()

    def groups(self, own: float, shared: float, *, relative: bool = False) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer with these two learning rates.

        With `relative` they are in units of the prompt's root mean square as it is now.
        """
        if relative:
            size = float(self.fixed().square().mean().sqrt())
            own, shared = own * size, shared * size
        return [
            {"params": [self.own], "lr": own},
            {"params": [self.shared, self.offset], "lr": shared},
        ]


def name_prompt(
    generator: Generator, label_texts: Sequence[str], shared: int, own: int
) -> SoftPrompt:
    """The soft prompt that reads as the labels' words: fillers, words, colon, as embeddings.

    Args:
        generator: whose embeddings.
        label_texts: the words of each label.
        shared: shared tokens; they start as fillers.
        own: tokens of each label; 0 for as many as the longest name needs. Longer names lose their last tokens.

    Raises:
        InvalidConfig: the generator has no positions for such a prompt and a sample.
    """
    own = own or generator.framing.name_width(label_texts)
    check_room(generator.model.model, generator.framing, shared + own, generator.max_tokens)
    ids = torch.tensor([generator.framing.name(words, own) for words in label_texts])
    filler = generator.model.embed(torch.full((shared,), generator.framing.filler))
    return SoftPrompt(filler, generator.model.embed(ids))


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning did.

    Attributes:
        rows: one row an epoch: mean negative log-likelihood a token of the tuned and the held-out texts.
        before, after: of the held-out texts, before tuning and with the prompt that was kept.
    """

    rows: list[dict[str, float]]
    before: float
    after: float


def tune(
    prompt: SoftPrompt,
    generator: Generator,
    texts: Sequence[Sequence[int]],
    labels: Sequence[int],
    config: SoftPromptConfig,
    *,
    seed: int,
    report: Report,
    log: Log | None = None,
) -> Tuned:
    """Raise the likelihood of each text behind its label's prompt (Lester et al. 2021); in place.

    The prompt of the epoch with the best likelihood of the held-out texts is kept, which may be the
    one it started from.

    Args:
        prompt: what is tuned; the generator itself is frozen.
        texts: token ids of n labelled texts.
        labels: the row of each text's label in the prompt.
        log: called with each row.
    """
    tuned, held_out = split_by_label(labels, config.held_out, seed)
    groups = prompt.groups(
        config.learning_rate, config.shared_learning_rate, relative=config.relative_rates
    )
    optimizer = torch.optim.Adam(groups)
    order = random.Random(seed)
    before = best = _mean_loss(prompt, generator, texts, labels, held_out, config.batch_size)
    kept = {name: value.clone() for name, value in prompt.state_dict().items()}
    rows = [{"epoch": 0.0, "held_out_loss": before}]
    if log:
        log(rows[0])
    waited = 0
    for epoch in range(1, config.epochs + 1):
        total = tokens = 0.0
        batches = list(_batches(order.sample(tuned, len(tuned)), texts, config.batch_size))
        order.shuffle(batches)
        for first in range(0, len(batches), config.accumulate):
            step = batches[first : first + config.accumulate]
            # The mean over all tokens of the step, so that it is the step of one large batch.
            count = sum(len(texts[row]) for batch in step for row in batch)
            for batch in step:
                loss, _ = _loss(
                    prompt(), generator, texts, labels, batch,
                    checkpointing=config.gradient_checkpointing,
                )  # fmt: skip
                (loss / count).backward()  # type: ignore[no-untyped-call]
                total += loss.item()
            tokens += count
            optimizer.step()
            optimizer.zero_grad()
        held = _mean_loss(prompt, generator, texts, labels, held_out, config.batch_size)
        rows.append({"epoch": float(epoch), "loss": total / tokens, "held_out_loss": held})
        if log:
            log(rows[-1])
        report(epoch, config.epochs, rows[-1])
        waited = 0 if held < best else waited + 1
        if held < best:
            best = held
            kept = {name: value.clone() for name, value in prompt.state_dict().items()}
        if waited == config.patience:
            break
    prompt.load_state_dict(kept)
    return Tuned(rows, before, best)


def split_by_label(labels: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Rows to tune on and rows held out: `share` of each label's, at least one, never its last."""
    order = random.Random(seed)
    by_label: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        by_label.setdefault(label, []).append(row)
    tuned: list[int] = []
    held_out: list[int] = []
    for label in sorted(by_label):
        rows = order.sample(by_label[label], len(by_label[label]))
        size = min(max(1, round(share * len(rows))), len(rows) - 1)
        held_out += rows[:size]
        tuned += rows[size:]
    return sorted(tuned), sorted(held_out)


def padded(sequences: Sequence[Sequence[int]], filler: int, limit: int) -> tuple[Tensor, Tensor]:
    """(n, t) ids padded on the right, and (n, t) True where they are no padding.

    t is a length that comes again (see `rounded`), not above `limit` unless a sequence is.
    """
    longest = max(map(len, sequences))
    longest = max(longest, min(rounded(longest), limit))
    ids = torch.full((len(sequences), longest), filler)
    mask = torch.zeros(len(sequences), longest, dtype=torch.bool)
    for row, tokens in enumerate(sequences):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = True
    return ids, mask


def _loss(
    prompts: Tensor,
    generator: Generator,
    texts: Sequence[Sequence[int]],
    labels: Sequence[int],
    rows: Sequence[int],
    *,
    checkpointing: bool = False,
) -> tuple[Tensor, int]:
    """Summed negative log-likelihood of the rows' tokens, and how many there are."""
    model: PromptedModel = generator.model
    read = [texts[row] for row in rows]
    ids, mask = padded(read, generator.framing.end, generator.max_tokens)
    ids, mask = ids.to(model.device), mask.to(model.device)
    behind = torch.tensor([labels[row] for row in rows], device=model.device)
    seen = assess(model, prompts, behind, ids, 1.0, checkpointing=checkpointing)
    return -seen.logprobs[mask].sum(), int(mask.sum())


@torch.no_grad()
def _mean_loss(
    prompt: SoftPrompt,
    generator: Generator,
    texts: Sequence[Sequence[int]],
    labels: Sequence[int],
    rows: Sequence[int],
    batch_size: int,
) -> float:
    total = tokens = 0.0
    for batch in _batches(rows, texts, batch_size):
        loss, count = _loss(prompt(), generator, texts, labels, batch)
        total, tokens = total + loss.item(), tokens + count
    return total / tokens


def _batches(rows: Sequence[int], texts: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    ordered = sorted(rows, key=lambda row: len(texts[row]))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]
