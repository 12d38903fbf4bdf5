"""What training and export ask of a student's network, whether it begins from scratch or from an encoder."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Outputs(NamedTuple):
    """Of a batch.

    Attributes:
        pooled: (b, hidden) mean over the layers' outputs.
        logits: (b, labels).
        queries: (b, query) of unit length.
    """

    pooled: Tensor
    logits: Tensor
    queries: Tensor


@dataclass(frozen=True, slots=True)
class WeightGroup:
    """Weights that are trained alike.

    Attributes:
        weights: of the network.
        rate: their largest learning rate.
        decays: whether weight decay is for them.
    """

    weights: list[nn.Parameter]
    rate: float
    decays: bool


class StudentNetwork(nn.Module, ABC):
    """Ids and mask in, class scores and unit query vectors out; padding stands on the right.

    Attributes:
        hidden: width of the pooled vector.
        vocabulary: number of tokens, ids 0 to that.
        max_tokens: longest sequence, special tokens included.
        query: what makes the query vector.
    """

    hidden: int
    vocabulary: int
    max_tokens: int
    query: nn.Linear

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores (b, labels) and unit query vectors (b, query) of padded ids (b, t)."""
        outputs = self.outputs(input_ids, attention_mask)
        return outputs.logits, outputs.queries

    @abstractmethod
    def outputs(self, input_ids: Tensor, attention_mask: Tensor) -> Outputs:
        """All that training reads of padded ids (b, t)."""

    @abstractmethod
    def weight_groups(self, rate: float, token_rate: float) -> list[WeightGroup]:
        """All weights, by how they are trained.

        Args:
            rate: learning rate of weights that begin at random.
            token_rate: that of token embeddings which do not belong to an encoder, as a multiple.
        """


def word_weights(importance: Tensor) -> Tensor:
    """Weights of words from their importance (…, 1): equal for 0, and bounded, so that no one word is all of a text."""
    return torch.exp(3.0 * torch.tanh(importance / 3.0))


def bag_of_words(embedded: Tensor, weights: Tensor, kept: Tensor) -> Tensor:
    """Weighted mean (b, embedding) of the embeddings (b, t, embedding) of a text's words.

    Args:
        embedded: the embeddings.
        weights: (b, t, 1) of each.
        kept: (b, t, 1), 0 where there is padding.
    """
    weights = weights * kept
    return (embedded * weights).sum(1) / weights.sum(1)


def parameter_count(model: nn.Module) -> int:
    """Number of weights, token embeddings included; four codes of a byte count as one weight."""
    weights = sum(weight.numel() for weight in model.parameters())
    codes = sum(part.numel() for part in model.buffers() if part.dtype == torch.uint8)
    return weights + -(-codes // 4)
