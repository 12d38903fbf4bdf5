"""The student: a small transformer that gives class scores and a query vector in one pass."""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from offline.configs.section import Section
from services.platform.errors import InvalidConfig


class ShapeConfig(Section):
    """Sizes of a student.

    Attributes:
        vocabulary: largest number of tokens; fewer are kept where the parameter limit asks for it.
        embedding: width of the token embeddings; projected where it is not `hidden`.
        hidden: width of the layers.
        layers: transformer layers.
        heads: attention heads a layer.
        feed_forward: inner width of a layer's feed-forward part.
        query: length of the query vector.
        max_tokens: longest sequence, special tokens included.
    """

    vocabulary: Annotated[int, Field(ge=64)] = 2500
    embedding: Annotated[int, Field(ge=4)] = 112
    hidden: Annotated[int, Field(ge=8)] = 128
    layers: Annotated[int, Field(ge=0)] = 1
    heads: Annotated[int, Field(ge=1)] = 4
    feed_forward: Annotated[int, Field(ge=8)] = 192
    query: Annotated[int, Field(ge=4)] = 64
    max_tokens: Annotated[int, Field(ge=8)] = 64

    @model_validator(mode="after")
    def _even_heads(self) -> "ShapeConfig":
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} cannot be shared by {self.heads} heads")
        return self


@dataclass(frozen=True, slots=True)
class StudentShape:
    """`ShapeConfig` with the numbers that the task gives: tokens of the vocabulary, and labels."""

    tokens: int
    labels: int
    sizes: ShapeConfig


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


class Student(nn.Module):
    """Pre-norm transformer (Xiong et al. 2020) with a masked mean over its outputs.

    The head reads that mean. The query vector reads it too, and beside it a weighted mean of the token
    embeddings themselves, which knows words better than what they mean together: neighbours are then
    found by more than what the head goes by, so that the two err on different texts.
    """

    def __init__(self, shape: StudentShape, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = shape.sizes
        self.shape = shape
        self.tokens = nn.Embedding(shape.tokens, sizes.embedding)
        self.importance = nn.Embedding(shape.tokens, 1)
        self.widen = nn.Linear(sizes.embedding, sizes.hidden, bias=False)
        self.positions = nn.Embedding(sizes.max_tokens, sizes.hidden)
        self.layers = nn.ModuleList(Layer(sizes, dropout) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.hidden)
        self.bag_norm = nn.LayerNorm(sizes.embedding)
        self.dropout = nn.Dropout(dropout)
        self.query = nn.Linear(sizes.hidden + sizes.embedding, sizes.query, bias=False)
        self.head = nn.Linear(sizes.hidden, shape.labels)
        nn.init.normal_(self.positions.weight, std=0.02)
        nn.init.zeros_(self.importance.weight)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores (b, labels) and unit query vectors (b, query) of padded ids (b, t)."""
        outputs = self.outputs(input_ids, attention_mask)
        return outputs.logits, outputs.queries

    def outputs(self, input_ids: Tensor, attention_mask: Tensor) -> Outputs:
        """All that training reads of padded ids (b, t)."""
        mask = attention_mask.bool()[:, None, None, :]
        kept = attention_mask[:, :, None].to(self.tokens.weight.dtype)
        embedded = self.tokens(input_ids)
        hidden = self.widen(embedded) + self.positions.weight[: input_ids.shape[1]]
        hidden = self.dropout(hidden)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        pooled = (self.norm(hidden) * kept).sum(1) / kept.sum(1)
        importance = torch.exp(self.importance(input_ids)) * kept
        bag = self.bag_norm((embedded * importance).sum(1) / importance.sum(1))
        queries = functional.normalize(self.query(torch.cat([pooled, bag], dim=1)), dim=1)
        return Outputs(pooled, self.head(pooled), queries)


class Layer(nn.Module):
    """Self-attention and a feed-forward part, each normed first and added."""

    def __init__(self, sizes: ShapeConfig, dropout: float) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.attention_norm = nn.LayerNorm(sizes.hidden)
        self.project_in = nn.Linear(sizes.hidden, 3 * sizes.hidden)
        self.project_out = nn.Linear(sizes.hidden, sizes.hidden)
        self.feed_forward_norm = nn.LayerNorm(sizes.hidden)
        self.expand = nn.Linear(sizes.hidden, sizes.feed_forward)
        self.contract = nn.Linear(sizes.feed_forward, sizes.hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = hidden + self.dropout(self._attend(self.attention_norm(hidden), mask))
        inner = functional.gelu(self.expand(self.feed_forward_norm(hidden)))
        output: Tensor = hidden + self.dropout(self.contract(inner))
        return output

    def _attend(self, hidden: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        parts = self.project_in(hidden).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output: Tensor = self.project_out(mixed.transpose(1, 2).reshape(batch, length, width))
        return output


def make_student(
    shape: StudentShape, embeddings: NDArray[np.float32], *, dropout: float, seed: int
) -> Student:
    """A student whose token embeddings are (tokens, embedding) `embeddings`, the rest random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Student(shape, dropout)
    with torch.no_grad():
        model.tokens.weight.copy_(torch.from_numpy(embeddings))
    return model


def parameter_count(model: nn.Module) -> int:
    """Number of weights, token embeddings included."""
    return sum(weight.numel() for weight in model.parameters())


def affordable_tokens(sizes: ShapeConfig, labels: int, limit: int) -> int:
    """How many tokens a student of these sizes may have within `limit` parameters.

    Raises:
        InvalidConfig: the layers alone are above the limit.
    """
    with torch.device("meta"):
        fixed, one_more = (
            parameter_count(Student(StudentShape(tokens, labels, sizes))) for tokens in (0, 1)
        )
    affordable = (limit - fixed) // (one_more - fixed)
    if affordable < 1:
        raise InvalidConfig(
            f"The student's layers have {fixed:,} parameters for {labels} labels, and {limit:,} is the "
            "limit with the token embeddings.",
            hint="Lower student.shape.hidden, layers or feed_forward, or raise student.max_share.",
        )
    return min(sizes.vocabulary, affordable)
