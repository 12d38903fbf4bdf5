"""A frozen language model behind prompts: scoring given texts and continuing them token by token."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model says of given texts.

    Attributes:
        logits: (n, t, vocabulary) float32, of the token at each place given the prompt and the
            tokens before it.
        hidden: (n, t, d) float32, the last layer where that token is predicted.
    """

    logits: Tensor
    hidden: Tensor


class PromptedModel:
    """A frozen causal language model that reads prompt embeddings before a text.

    All prompts are equally long and come first, so no call needs a mask or padding on the left. Each
    distinct prompt is read once; its keys and values are handed to every row that stands behind it,
    and gradients reach the prompt through them.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        model.train(False).requires_grad_(False)
        self.model = model
        self._embedding = model.get_input_embeddings()
        table = cast(Tensor, self._embedding.weight)
        self.dimensions = int(table.shape[1])
        self.device: torch.device = table.device
        self.dtype: torch.dtype = table.dtype

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings of token ids, float32."""
        rows: Tensor = self._embedding(ids.to(self.device)).detach().float()
        return rows

    def score(self, prompts: Tensor, rows: Tensor, ids: Tensor) -> Scored:
        """Logits for given texts.

        Args:
            prompts: (p, length, d) prompt embeddings.
            rows: (n,) which prompt each text stands behind.
            ids: (n, t) token ids, padded on the right with any token.
        """
        used, rows = torch.unique(rows, return_inverse=True)
        first = self.read(prompts[used], None, hidden=True)
        logits = first.logits[:, -1:].index_select(0, rows)
        hidden = first.hidden_states[-1][:, -1:].index_select(0, rows)
        if ids.shape[1] > 1:
            cache = first.past_key_values
            cache.batch_select_indices(rows)
            rest = self.read(self._embedding(ids[:, :-1]), cache, hidden=True)
            logits = torch.cat([logits, rest.logits], dim=1)
            hidden = torch.cat([hidden, rest.hidden_states[-1]], dim=1)
        return Scored(logits.float(), hidden.float())

    def read(self, embeddings: Tensor, cache: Any | None, *, hidden: bool = False) -> Any:
        """The model's output for (n, t, d) embeddings behind what `cache` holds; it grows in place."""
        return self.model(
            inputs_embeds=embeddings.to(self.dtype),
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=hidden,
            return_dict=True,
        )


class Continuation:
    """Texts that are written behind prompts, token by token.

    Attributes:
        logits: (n, vocabulary) float32, of the next token of each row.
    """

    def __init__(
        self, model: PromptedModel, prompts: Tensor, rows: Tensor, *, cached: bool = True
    ) -> None:
        """Begin n texts; `rows` (n,) says which of the (p, length, d) prompts each stands behind.

        Without `cached` every token reads its whole text anew: slow, and there to check against.
        """
        self._model = model
        self._cache: Any | None = None
        self._read: Tensor | None = None
        if cached:
            first = model.read(prompts, None)
            self._cache = first.past_key_values
            self._cache.batch_select_indices(rows)
            self.logits = first.logits[:, -1].float().index_select(0, rows)
        else:
            self._read = prompts.index_select(0, rows)
            self.logits = model.read(self._read, None).logits[:, -1].float()

    def append(self, tokens: Tensor) -> None:
        """Add one token, (n,), to each row."""
        added = self._model.embed(tokens).unsqueeze(1)
        if self._read is None:
            self.logits = self._model.read(added, self._cache).logits[:, -1].float()
        else:
            self._read = torch.cat([self._read, added], dim=1)
            self.logits = self._model.read(self._read, None).logits[:, -1].float()

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        if self._cache is not None:
            self._cache.batch_select_indices(rows)
        if self._read is not None:
            self._read = self._read.index_select(0, rows)
