"""What PPO rewards: named terms with a weight each, and the registry that users add their own to.

A term is a function from a `RewardBatch` to one number a sample, 1 for as good as it gets and 0 for as
bad, registered under a name:

    from offline.teacher.rewards import RewardBatch, reward_term

    @reward_term("mentions_ticket")
    def mentions_ticket(batch: RewardBatch) -> NDArray[np.float32]:
        return np.array(["ticket" in text for text in batch.texts], dtype=np.float32)

The configuration gives it a weight and names the module to import:

    ppo:
      reward:
        modules: [my_rewards]
        weights: {accuracy: 1.0, new_wording: 0.5, mentions_ticket: 0.2}
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from offline.configs.section import Section
from offline.teacher.soft_labels import SoftLabeller, joined
from offline.teacher.text_memory import LabelledTexts, TrainingTexts
from services.platform.errors import InvalidConfig

Term = Callable[["RewardBatch"], NDArray[np.float32]]

TERMS: dict[str, Term] = {}
"""Every registered term, by name."""


WEIGHTS = {
    "accuracy": 1.0,
    "new_wording": 0.5,
    "new_meaning": 0.25,
    "no_copy": 0.5,
    "length": 0.5,
    "no_repetition": 0.25,
    "no_label_words": 0.25,
}


class RewardConfig(Section):
    """What is rewarded, and how much.

    Attributes:
        weights: weight of each term; one that is not named does not count.
        modules: Python modules to import first, which register terms of their own.
    """

    weights: dict[str, float] = Field(default_factory=lambda: dict(WEIGHTS))
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RewardBatch:
    """Samples to be rewarded, with all that a term may look at.

    Attributes:
        texts, pairs: n texts; n second texts, or None where the task has single ones.
        labels: (n,) the label each was written for.
        label_words: the words of each label.
        probabilities: (n, labels) the labeller's.
        embeddings: (n, d) the labeller's, of unit length.
        complete: (n,) whether the sample came to its end in time, a pair with both texts.
        training: the training texts.
        recent: other samples: those of the last steps, not these.
    """

    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: NDArray[np.int64]
    label_words: Sequence[str]
    probabilities: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    complete: NDArray[np.bool_]
    training: TrainingTexts
    recent: LabelledTexts

    @property
    def whole(self) -> list[str]:
        """The samples as one text each, pairs on two lines."""
        return joined(self.texts, self.pairs)


@dataclass(frozen=True, slots=True)
class Rewarded:
    """What samples are worth.

    Attributes:
        total: (n,) float32, the weighted sum.
        parts: each term's (n,) values, before its weight.
        agreement: (n,) whether the labeller's first choice is the label that was asked for.
    """

    total: NDArray[np.float32]
    parts: Mapping[str, NDArray[np.float32]]
    agreement: NDArray[np.bool_]


def reward_term(name: str) -> Callable[[Term], Term]:
    """Register a term under `name`.

    A module may register a name again: the later term replaces the earlier one, so that the module can
    be loaded anew.

    Raises:
        InvalidConfig: a term of another module has that name.
    """

    def register(term: Term) -> Term:
        known = TERMS.get(name)
        if known is not None and known.__module__ != term.__module__:
            raise InvalidConfig(f"Two reward terms are named {name!r}: {known} and {term}.")
        TERMS[name] = term
        return term

    return register


def load_terms(config: RewardConfig) -> dict[str, tuple[float, Term]]:
    """Weight and function of every term that counts.

    Raises:
        InvalidConfig: a module cannot be imported, or no term has that name.
    """
    # Imported by name, so that an edited term counts as the stage's code.
    import offline.teacher.reward_terms  # noqa: F401

    for module in config.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InvalidConfig(
                f"The reward module {module!r} cannot be imported: {error}.",
                hint="Name a module on the Python path under ppo.reward.modules.",
            ) from error
    unknown = sorted(set(config.weights) - set(TERMS))
    if unknown:
        raise InvalidConfig(
            f"There is no reward term {', '.join(map(repr, unknown))}.",
            hint=f"There are {', '.join(sorted(TERMS))}; register yours with `reward_term`.",
        )
    return {name: (weight, TERMS[name]) for name, weight in config.weights.items() if weight}


class Reward:
    """The weighted sum of terms for samples of one task."""

    def __init__(
        self,
        config: RewardConfig,
        labeller: SoftLabeller,
        label_words: Sequence[str],
        training: TrainingTexts,
    ) -> None:
        self._terms = load_terms(config)
        self.labeller = labeller
        self.training = training
        self._label_words = label_words

    def __call__(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        labels: NDArray[np.int64],
        complete: NDArray[np.bool_],
        recent: LabelledTexts,
    ) -> tuple[Rewarded, LabelledTexts]:
        """The samples' reward, and the samples in the form that `recent` keeps them in.

        Args:
            texts, pairs, labels, complete, recent: see `RewardBatch`.
        """
        embeddings = self.labeller.embed(texts, pairs)
        probabilities = self.labeller.soft_labels(texts, pairs, embeddings=embeddings)
        batch = RewardBatch(
            texts, pairs, labels, self._label_words, probabilities, embeddings, complete,
            self.training, recent,
        )  # fmt: skip
        parts = {name: term(batch) for name, (_, term) in self._terms.items()}
        total = np.zeros(len(texts), dtype=np.float32)
        for name, (weight, _) in self._terms.items():
            total += np.float32(weight) * parts[name]
        agreement = probabilities.argmax(1) == labels
        samples = LabelledTexts.of(batch.whole, labels, embeddings)
        return Rewarded(total, parts, agreement), samples
