"""A frozen language model behind prompts: scoring given texts and continuing them token by token."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from offline.teacher.gradient_checkpointing import checkpointed_layers


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model says of given texts.

    Attributes:
        logits: (n, t, vocabulary), of the token at each place given the prompt and the tokens before
            it; float32 from `score`, elsewhere in the model's own number format.
        hidden: (n, t, d) float32, the last layer where that token is predicted.
    """

    logits: Tensor
    hidden: Tensor


@dataclass(slots=True)
class Context:
    """What a model keeps of n rows that it has read.

    Attributes:
        cache: keys and values; grows as more is read. None where nothing is kept.
        encoded: (n, length, d) the encoder's output for the rows' prompts; None for a causal model.
    """

    cache: Any | None
    encoded: Tensor | None

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order; one may occur any number of times."""
        caches = [self.cache]
        if self.encoded is not None:
            self.encoded = self.encoded.index_select(0, rows)
            if self.cache is not None:
                caches = [self.cache.self_attention_cache, self.cache.cross_attention_cache]
        for cache in caches:
            # Each layer keeps what is its own where it computes.
            for layer in [] if cache is None else cache.layers:
                keys = getattr(layer, "keys", None)
                layer.batch_select_indices(rows if keys is None else rows.to(keys.device))


class PromptedModel(ABC):
    """A frozen language model that reads prompt embeddings before it writes a text.

    All prompts are equally long and come first, so no call needs a mask or padding on the left. Each
    distinct prompt is read once; what the model keeps of it is handed to every row that stands
    behind it, and gradients reach the prompt through it.

    Attributes:
        task_type: what PEFT calls the kind of model.
        dimensions: of a prompt embedding.
    """

    task_type: ClassVar[str]

    def __init__(self, model: PreTrainedModel, embedding: torch.nn.Module) -> None:
        model.train(False).requires_grad_(False)
        self.model = model
        self._embedding = embedding
        table = cast(Tensor, embedding.weight)
        self.dimensions = int(table.shape[1])
        self.device: torch.device = table.device
        self.dtype: torch.dtype = table.dtype

    @abstractmethod
    def open(
        self, prompts: Tensor, *, cached: bool = True, hidden: bool = False
    ) -> tuple[Context, Scored]:
        """Read (p, length, d) prompts.

        Returns:
            What is kept of them, p rows, and (p, 1, …) what is said of the first token.
        """

    @abstractmethod
    def read(self, ids: Tensor, context: Context, *, hidden: bool = False) -> Scored:
        """What is said of the tokens after each of (n, t) tokens behind a context, which takes them in."""

    @abstractmethod
    def read_whole(
        self, prompts: Tensor, rows: Tensor, ids: Tensor, *, hidden: bool = False
    ) -> Scored:
        """As `score` does, in one pass over whole rows without keys and values kept, and of (n, t + 1) places."""

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings of token ids as prompts hold them, float32."""
        rows: Tensor = self._embedding(ids.to(self.device)).detach().float()
        return rows

    def hidden_dimensions(self) -> int:
        """Width of the last layer, which is not the embeddings' in every model."""
        with torch.no_grad():
            _, first = self.open(
                torch.zeros(1, 1, self.dimensions, device=self.device), hidden=True
            )
        return int(first.hidden.shape[-1])

    def score(
        self, prompts: Tensor, rows: Tensor, ids: Tensor, *, checkpointing: bool = False
    ) -> Scored:
        """Logits for given texts.

        Args:
            prompts: (p, length, d) prompt embeddings.
            rows: (n,) which prompt each text stands behind.
            ids: (n, t) token ids, padded on the right with any token.
            checkpointing: keep each layer's inputs alone and compute the layer again for the gradient
                (Chen et al. 2016), which trades a third more time for most of the memory.
        """
        parts = list(self.score_parts(prompts, rows, ids, checkpointing=checkpointing))
        return Scored(
            torch.cat([part.logits for part in parts], dim=1).float(),
            torch.cat([part.hidden for part in parts], dim=1),
        )

    def score_parts(
        self, prompts: Tensor, rows: Tensor, ids: Tensor, *, checkpointing: bool = False
    ) -> Iterator[Scored]:
        """What `score` gives, for consecutive places: logits are too large to be put together for nothing."""
        if checkpointing:
            with checkpointed_layers(self.model) if torch.is_grad_enabled() else nullcontext():
                scored = self.read_whole(prompts, rows, ids[:, :-1], hidden=True)
            yield Scored(scored.logits, scored.hidden.float())
            return
        used, rows = torch.unique(rows, return_inverse=True)
        context, first = self.open(prompts[used], hidden=True)
        yield Scored(first.logits.index_select(0, rows), first.hidden.index_select(0, rows).float())
        if ids.shape[1] > 1:
            context.select(rows)
            rest = self.read(ids[:, :-1], context, hidden=True)
            yield Scored(rest.logits, rest.hidden.float())


class PromptedCausal(PromptedModel):
    """A decoder: the prompt stands directly before the text."""

    task_type = "CAUSAL_LM"

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model, model.get_input_embeddings())

    def open(
        self, prompts: Tensor, *, cached: bool = True, hidden: bool = False
    ) -> tuple[Context, Scored]:
        output = self._output(prompts, None, cached, hidden)
        scored = _scored(output.logits[:, -1:], output.hidden_states, slice(-1, None))
        return Context(output.past_key_values if cached else None, None), scored

    def read(self, ids: Tensor, context: Context, *, hidden: bool = False) -> Scored:
        output = self._output(self._embedding(ids), context.cache, True, hidden)
        return _scored(output.logits, output.hidden_states, slice(None))

    def read_whole(
        self, prompts: Tensor, rows: Tensor, ids: Tensor, *, hidden: bool = False
    ) -> Scored:
        text = self._embedding(ids).to(prompts.dtype)
        embeddings = torch.cat([prompts.index_select(0, rows), text], dim=1)
        output = self._output(embeddings, None, False, hidden)
        places = slice(prompts.shape[1] - 1, None)
        return _scored(output.logits[:, places], output.hidden_states, places)

    def _output(self, embeddings: Tensor, cache: Any | None, cached: bool, hidden: bool) -> Any:
        return self.model(
            inputs_embeds=embeddings.to(self.dtype),
            past_key_values=cache,
            use_cache=cached,
            output_hidden_states=hidden,
            return_dict=True,
        )


class PromptedEncoderDecoder(PromptedModel):
    """An encoder that reads the prompt, and a decoder that writes the text."""

    task_type = "SEQ_2_SEQ_LM"

    def __init__(self, model: PreTrainedModel, start: Sequence[int]) -> None:
        """Take a model and the ids that its decoder begins with; see `Framing.start`."""
        # The encoder's own: it may scale (BART's), which the shared table does not.
        super().__init__(model, model.get_encoder().get_input_embeddings())
        self._start = torch.tensor([list(start)], device=self.device)

    def open(
        self, prompts: Tensor, *, cached: bool = True, hidden: bool = False
    ) -> tuple[Context, Scored]:
        encoded = self._encode(prompts)
        start = self._start.expand(len(prompts), -1)
        output = self._output(start, encoded, None, cached, hidden)
        scored = _scored(output.logits[:, -1:], output.decoder_hidden_states, slice(-1, None))
        return Context(output.past_key_values if cached else None, encoded), scored

    def read(self, ids: Tensor, context: Context, *, hidden: bool = False) -> Scored:
        assert context.encoded is not None
        output = self._output(ids, context.encoded, context.cache, True, hidden)
        return _scored(output.logits, output.decoder_hidden_states, slice(None))

    def read_whole(
        self, prompts: Tensor, rows: Tensor, ids: Tensor, *, hidden: bool = False
    ) -> Scored:
        used, rows = torch.unique(rows, return_inverse=True)
        encoded = self._encode(prompts[used]).index_select(0, rows)
        text = torch.cat([self._start.expand(len(ids), -1), ids], dim=1)
        output = self._output(text, encoded, None, False, hidden)
        places = slice(self._start.shape[1] - 1, None)
        return _scored(output.logits[:, places], output.decoder_hidden_states, places)

    def _encode(self, prompts: Tensor) -> Tensor:
        output = self.model.get_encoder()(inputs_embeds=prompts.to(self.dtype), return_dict=True)
        encoded: Tensor = output.last_hidden_state
        return encoded

    def _output(
        self, ids: Tensor, encoded: Tensor, cache: Any | None, cached: bool, hidden: bool
    ) -> Any:
        return self.model(
            decoder_input_ids=ids,
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            past_key_values=cache,
            use_cache=cached,
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
        self._prompts, self._rows = prompts, rows
        self._context: Context | None = None
        self._written = torch.empty(len(rows), 0, dtype=torch.long, device=model.device)
        context, first = model.open(prompts, cached=cached)
        if cached:
            context.select(rows)
            self._context = context
        self.logits = first.logits[:, -1].float().index_select(0, rows)

    def append(self, tokens: Tensor) -> None:
        """Add one token, (n,), to each row."""
        added = tokens.unsqueeze(1)
        if self._context is not None:
            scored = self._model.read(added, self._context)
        else:
            self._written = torch.cat([self._written, added], dim=1)
            scored = self._model.read_whole(self._prompts, self._rows, self._written)
        self.logits = scored.logits[:, -1].float()

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self._rows = self._rows.index_select(0, rows)
        if self._context is not None:
            self._context.select(rows)
        else:
            self._written = self._written.index_select(0, rows)


def _scored(logits: Tensor, hidden: Sequence[Tensor] | None, places: slice) -> Scored:
    """Scores at some places; where no hidden states were asked for, an empty tensor stands for them."""
    last = logits.new_empty(0) if hidden is None else hidden[-1][:, places]
    return Scored(logits, last)
