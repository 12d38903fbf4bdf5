"""The student from scratch: a small transformer that gives class scores and a query vector in one pass."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from offline.configs.section import Section
from offline.student import serving_operators
from offline.student.dropout import Dropout
from offline.student.network import (
    Outputs,
    StudentNetwork,
    WeightGroup,
    bag_of_words,
    parameter_count,
    word_weights,
)
from offline.student.token_codes import PARTS_SHARED, TokenCodes
from services.platform.errors import InvalidConfig


class ShapeConfig(Section):
    """Sizes of a student. One that starts from an encoder reads `query` and `max_tokens` alone.

    Attributes:
        vocabulary: largest number of tokens with an embedding of their own; fewer are kept where the
            parameter limit asks for it.
        coded: largest number of further tokens, whose embeddings are composed from shared parts: those
            of the texts that got none of their own, then the encoder's most frequent ones.
        codes: parts of a composed embedding, a byte a token each; 0 does without any.
        embedding: width of the token embeddings; projected where it is not `hidden`.
        hidden: width of the layers.
        layers: transformer layers.
        heads: attention heads a layer.
        feed_forward: inner width of a layer's feed-forward part.
        query: length of the query vector.
        max_tokens: longest sequence, special tokens included.
    """

    vocabulary: Annotated[int, Field(ge=64)] = 2500
    coded: Annotated[int, Field(ge=0)] = 16_000
    codes: Annotated[int, Field(ge=0)] = 16
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
        if self.codes and self.embedding % self.codes:
            raise ValueError(f"embedding {self.embedding} cannot be cut into {self.codes} parts")
        return self


@dataclass(frozen=True, slots=True)
class StudentShape:
    """`ShapeConfig` with the numbers that the task gives.

    Attributes:
        tokens: of the vocabulary.
        own: how many of them, the first ones, have an embedding of their own.
        labels: of the head.
        sizes: the rest.
    """

    tokens: int
    own: int
    labels: int
    sizes: ShapeConfig


class TokenEmbeddings(nn.Module):
    """A row of their own for the first tokens; composed from shared parts, all tokens' embeddings.

    With parts, a token's embedding is the sum of both, and one more row is the own part of all tokens
    that have none. Without them, the rows are all there is.
    """

    codes: Tensor
    offsets: Tensor

    def __init__(self, shape: StudentShape) -> None:
        super().__init__()
        sizes, parts = shape.sizes, shape.sizes.codes
        self.own = nn.Embedding(shape.own + (1 if parts else 0), sizes.embedding)
        self.parts = parts
        if parts:
            self.books = nn.Parameter(torch.zeros(parts * PARTS_SHARED, sizes.embedding // parts))
            self.register_buffer("codes", torch.zeros((shape.tokens, parts), dtype=torch.uint8))
            offsets = torch.arange(parts) * PARTS_SHARED
            self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """(b, t, embedding) of ids (b, t)."""
        own: Tensor = (
            self.own(ids.clamp(max=self.own.num_embeddings - 1)) if self.parts else self.own(ids)
        )
        return self._composed(self.codes[ids]) + own if self.parts else own

    def every(self) -> Tensor:
        """(tokens, embedding) of all tokens."""
        own = self.own.weight
        if not self.parts:
            return own
        others = own[-1:].expand(len(self.codes) - len(own) + 1, -1)
        return self._composed(self.codes) + torch.cat([own[:-1], others])

    def _composed(self, codes: Tensor) -> Tensor:
        return functional.embedding(codes.to(torch.int64) + self.offsets, self.books).flatten(-2)

    @torch.no_grad()
    def initialise(self, embeddings: NDArray[np.float32], codes: TokenCodes | None) -> None:
        """Begin with (tokens, embedding) `embeddings`; exactly, where tokens have their own row."""
        own = embeddings
        if codes is not None:
            self.codes.copy_(torch.from_numpy(codes.codes))
            self.books.copy_(torch.from_numpy(codes.books).flatten(0, 1))
            count = self.own.num_embeddings - 1
            own = np.zeros((count + 1, embeddings.shape[1]), dtype=np.float32)
            own[:count] = (embeddings - codes.embeddings())[:count]
        self.own.weight.copy_(torch.from_numpy(own))


class Student(StudentNetwork):
    """Pre-norm transformer (Xiong et al. 2020) with a masked mean over its outputs.

    The head reads that mean. The query vector reads it too, and beside it a weighted mean of the token
    embeddings themselves, which knows words better than what they mean together: neighbours are then
    found by more than what the head goes by, so that the two err on different texts.
    """

    def __init__(self, shape: StudentShape, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = shape.sizes
        self.hidden, self.vocabulary = sizes.hidden, shape.tokens
        self.max_tokens = sizes.max_tokens
        self.tokens = TokenEmbeddings(shape)
        self.importance = nn.Linear(sizes.embedding, 1)
        self.widen = nn.Linear(sizes.embedding, sizes.hidden, bias=False)
        self.positions = nn.Embedding(sizes.max_tokens, sizes.hidden)
        self.layers = nn.ModuleList(Layer(sizes, dropout) for _ in range(sizes.layers))
        self.norm = nn.LayerNorm(sizes.hidden)
        self.bag_norm = nn.LayerNorm(sizes.embedding)
        self.dropout = Dropout(dropout)
        self.query = nn.Linear(sizes.hidden + sizes.embedding, sizes.query, bias=False)
        self.head = nn.Linear(sizes.hidden, shape.labels)
        nn.init.normal_(self.positions.weight, std=0.02)
        nn.init.zeros_(self.importance.weight)

    def outputs(self, input_ids: Tensor, attention_mask: Tensor) -> Outputs:
        embedded, wide, weights = self._of_tokens(input_ids)
        kept = attention_mask[:, :, None].to(embedded.dtype)
        hidden = serving_operators.add(wide, self.positions.weight[: input_ids.shape[1]])
        hidden = self.dropout(hidden)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask)
        pooled = (self.norm(hidden) * kept).sum(1) / kept.sum(1)
        bag = self.bag_norm(bag_of_words(embedded, weights, kept))
        queries = functional.normalize(self.query(torch.cat([pooled, bag], dim=1)), dim=1)
        return Outputs(pooled, self.head(pooled), queries)

    def _of_tokens(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each of ids (b, t): its embedding, the same as wide as the layers, its weight (b, t, 1).

        All hang on nothing but the token. The exported graph says them of every token and looks them up:
        ONNX Runtime computes such tables once, when it opens the file, which stays as small as the codes.
        """
        if not torch.compiler.is_exporting():
            return self._derived(self.tokens(ids))
        embedded, wide, weights = (
            functional.embedding(ids, table) for table in self._derived(self.tokens.every())
        )
        return embedded, wide, weights

    def _derived(self, embedded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wide = self.widen(embedded)
        return embedded, wide, word_weights(self.importance(embedded))

    def weight_groups(self, rate: float, token_rate: float) -> list[WeightGroup]:
        tokens = list(self.tokens.parameters())
        others = [
            weight for name, weight in self.named_parameters() if not name.startswith("tokens.")
        ]
        # Decay would wear away the rows of tokens that few batches hold.
        return [WeightGroup(others, rate, True), WeightGroup(tokens, rate * token_rate, False)]


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
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(b, t, hidden) of the same and a mask (b, t), 1 for what may be read."""
        attended = self._attend(self.attention_norm(hidden), mask)
        hidden = serving_operators.add(hidden, self.dropout(attended))
        inner = functional.gelu(self.expand(self.feed_forward_norm(hidden)))
        return serving_operators.add(hidden, self.dropout(self.contract(inner)))

    def _attend(self, hidden: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        if torch.compiler.is_exporting():
            exported: Tensor = self.project_out(
                serving_operators.self_attention(hidden, self.project_in, mask, self.heads)
            )
            return exported
        parts = self.project_in(hidden).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask.bool()[:, None, None, :]
        )
        output: Tensor = self.project_out(mixed.transpose(1, 2).reshape(batch, length, width))
        return output


def make_student(
    shape: StudentShape,
    embeddings: NDArray[np.float32],
    codes: TokenCodes | None,
    *,
    dropout: float,
    seed: int,
) -> Student:
    """A student whose token embeddings begin with (tokens, embedding) `embeddings`, the rest random.

    Args:
        shape: its sizes.
        embeddings: of all its tokens.
        codes: what composes them where `shape.sizes.codes` asks for it.
        dropout: in embeddings and layers.
        seed: of the random part.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Student(shape, dropout)
    model.tokens.initialise(embeddings, codes)
    return model


def affordable_tokens(sizes: ShapeConfig, labels: int, limit: int) -> int:
    """How many tokens may have an embedding of their own in a student within `limit` parameters.

    The codes of all `sizes.coded` further tokens are paid for first.

    Raises:
        InvalidConfig: the layers and codes alone are above the limit.
    """

    def size(own: int) -> int:
        tokens = own + (sizes.coded if sizes.codes else 0)
        return parameter_count(Student(StudentShape(tokens, own, labels, sizes)))

    with torch.device("meta"):
        fixed, hundred_more = size(0), size(100)
        affordable = (limit - fixed) * 100 // (hundred_more - fixed)
        # Codes are counted in whole weights: rounding may ask for one more.
        if affordable > 0 and size(affordable) > limit:
            affordable -= 1
    if affordable < 1:
        raise InvalidConfig(
            f"The student's layers and codes have {fixed:,} parameters for {labels} labels, and "
            f"{limit:,} is the limit with the token embeddings.",
            hint="Lower student.shape.hidden, layers, feed_forward or coded, or raise the lower of "
            "student.max_parameters and student.max_share of the labeller's.",
        )
    return min(sizes.vocabulary, affordable)
