"""What PPO brought: name prefix, tuned prompt and PPO's prompt, each measured on fresh samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from offline.pipeline.stage import Report
from offline.teacher.diversity import copy_share, distinct_share, self_bleu
from offline.teacher.generator import Generator
from offline.teacher.rewards import Reward
from offline.teacher.sampling import SamplingConfig
from offline.teacher.soft_labels import SoftLabeller, joined
from offline.teacher.text_memory import LabelledTexts
from offline.teacher.writing import balanced_labels, write

COMPARISON = "comparison.json"
"""The file that the figures are written to."""


def compare(
    prompts: Mapping[str, Tensor],
    generator: Generator,
    reward: Reward,
    judge: SoftLabeller,
    labels: Sequence[str],
    training_texts: Sequence[str],
    unlabelled_texts: Sequence[str],
    *,
    samples: int,
    sampling: SamplingConfig,
    seed: int,
    report: Report = lambda *_: None,
) -> dict[str, dict[str, Any]]:
    """Figures of every prompt, by its name.

    Equal prompts (tuning and PPO may keep what they began with) are measured once.

    Args:
        prompts: (labels, t, d) each.
        generator: the frozen model behind all of them.
        reward: what PPO was rewarded by; its batch is the fresh samples alone.
        judge: a labeller that the reward never saw.
        labels: label names.
        training_texts: what `copies` are copies of; pairs joined.
        unlabelled_texts: what `copies_unlabelled` are copies of; pairs joined.
        samples: of each prompt, the same number of each label.
        sampling: temperature and top-p.
        seed: of the draws, the same for each prompt.
        report: called with how many prompts are measured.
    """
    figures: dict[str, dict[str, Any]] = {}
    for done, (name, prompt) in enumerate(prompts.items()):
        report(done, len(prompts), {})
        same = next((other for other in figures if _equal(prompts[other], prompt)), None)
        if same is not None:
            figures[name] = dict(figures[same])
            continue
        asked = balanced_labels(samples, len(labels))
        source = torch.Generator().manual_seed(seed)
        written = write(generator, prompt, asked, sampling, source)
        rewarded, kept = reward(
            written.texts, written.pairs, asked, written.complete, LabelledTexts.none()
        )
        judged = judge.soft_labels(written.texts, written.pairs, embeddings=kept.embeddings)
        texts = joined(written.texts, written.pairs)
        figures[name] = {
            "samples": samples,
            "reward": float(rewarded.total.mean()),
            "reward_parts": {part: float(values.mean()) for part, values in rewarded.parts.items()},
            "label_agreement": float(rewarded.agreement.mean()),
            "label_agreement_judge": float((judged.argmax(1) == asked).mean()),
            "self_bleu": self_bleu(texts, [labels[label] for label in asked], seed=seed),
            "distinct": distinct_share(texts),
            "copies": copy_share(texts, training_texts),
            "copies_unlabelled": copy_share(texts, unlabelled_texts),
            "length": float(written.sampled.lengths.float().mean()),
            "complete": float(written.complete.mean()),
        }
    return figures


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.float().cpu(), other.float().cpu())
