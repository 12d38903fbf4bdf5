"""A frozen sentence encoder: embeddings of texts, pairs and single tokens."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from offline.configs.section import Section
from offline.teacher.precision import settled
from offline.teacher.pretrained import PACKAGED, model_directory

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class EncoderConfig(Section):
    """Which encoder, and how it is run.

    Attributes:
        model: the packaged encoder, a hub name, or a directory.
        max_tokens: longer texts are cut.
        batch_size: rows in one forward pass; on one core 16 to 32 were a third faster than 64.
        device: a torch device.
        precision: `float32`, `bfloat16` (1.75 times as fast on a processor that computes in it, cosines to
            float32's embeddings above 0.9999; slow on others), or `auto`: the better one of this device.
        pooling: what of the encoder makes a text's embedding: `layers`, the mean of the last layer over the
            tokens, the mean of the layer two thirds up and the maximum of the last layer, side by side;
            or `mean`, the first of them alone. Beside the mean alone, `layers` was worth 2 to 4 points
            of a labeller's accuracy on trec, emotion, sst2 and subj (32 examples a class, 3 seeds, on other
            training rows), and cost 0.4 on banking77 (10 a class).
    """

    model: str = PACKAGED
    max_tokens: Annotated[int, Field(ge=4)] = 128
    batch_size: Annotated[int, Field(ge=1)] = 32
    device: str = "cpu"
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    pooling: Literal["mean", "layers"] = "layers"


class SentenceEncoder:
    """A frozen encoder and its tokenizer."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: EncoderConfig
    ) -> None:
        model.train(False).requires_grad_(False)
        self.model = cast(torch.nn.Module, model).to(config.device)
        self.tokenizer = tokenizer
        self.config = config
        self.hidden_size = int(model.config.hidden_size)
        self.dimensions = self.hidden_size * (3 if config.pooling == "layers" else 1)
        self.parameters = sum(tensor.numel() for tensor in model.parameters())

    @property
    def identity(self) -> str:
        """Name of the model, for manifests."""
        return Path(self.config.model).name

    def embed(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Embeddings of unit length, one row a text.

        Args:
            texts: n texts.
            pairs: n second texts; text and pair are then encoded as one sequence.
            progress: called after every batch.

        Returns:
            (n, dimensions) float32; see `EncoderConfig.pooling`. Each of the parts has the same length.
        """
        output = np.empty((len(texts), self.dimensions), dtype=np.float32)
        lengths = [len(text) for text in texts]
        if pairs is not None:
            lengths = [length + len(pair) for length, pair in zip(lengths, pairs, strict=True)]
        # Texts of like length share a batch, so that little is spent on padding.
        order = np.argsort(np.negative(lengths), kind="stable")
        size = self.config.batch_size
        for start in range(0, len(texts), size):
            rows = order[start : start + size]
            output[rows] = self._embed_batch(
                [texts[row] for row in rows],
                [pairs[row] for row in rows] if pairs is not None else None,
            )
            if progress is not None:
                progress(min(start + size, len(texts)), len(texts))
        return output

    def embed_tokens(self, tokens: Sequence[str]) -> NDArray[np.float32]:
        """What the encoder gives for single tokens of its vocabulary, (n, hidden_size) float32.

        Each token stands alone between the special tokens; the row is the last layer's output at its
        place, not normalised. Unknown tokens give the unknown token's row.
        """
        ids = cast(list[int], self.tokenizer.convert_tokens_to_ids(list(tokens)))
        frame = cast(list[int], self.tokenizer("a")["input_ids"])
        special = self.tokenizer.get_special_tokens_mask(frame, already_has_special_tokens=True)
        place = special.index(0)
        before, after = frame[:place], frame[place + 1 :]
        framed = [[*before, token, *after] for token in ids]
        output = np.empty((len(ids), self.hidden_size), dtype=np.float32)
        size = self.config.batch_size * 8
        for start in range(0, len(ids), size):
            batch = torch.tensor(framed[start : start + size], device=self.config.device)
            hidden = self._hidden(input_ids=batch, attention_mask=torch.ones_like(batch))
            output[start : start + size] = hidden[-1][:, place].float().cpu().numpy()
        return output

    def _embed_batch(self, texts: list[str], pairs: list[str] | None) -> NDArray[np.float32]:
        batch = self.tokenizer(
            texts,
            pairs,
            padding=True,
            truncation=True,
            max_length=self.config.max_tokens,
            return_tensors="pt",
        ).to(self.config.device)
        hidden = self._hidden(**batch)
        mask = batch["attention_mask"].unsqueeze(-1)
        parts = [_mean(hidden[-1], mask)]
        if self.config.pooling == "layers":
            parts.append(_mean(hidden[round(2 / 3 * (len(hidden) - 1))], mask))
            parts.append(hidden[-1].float().masked_fill(mask == 0, -torch.inf).amax(1))
        unit = torch.cat([torch.nn.functional.normalize(part, dim=1) for part in parts], dim=1)
        embeddings: NDArray[np.float32] = (unit / len(parts) ** 0.5).cpu().numpy()
        return embeddings

    @torch.inference_mode()
    def _hidden(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Outputs of the embedding layer and of every layer, (b, tokens, hidden_size) each."""
        low = settled(self.config.precision, self.config.device) == "bfloat16"
        with torch.autocast(self.config.device.split(":")[0], torch.bfloat16, enabled=low):
            hidden: tuple[torch.Tensor, ...] = self.model(
                **inputs, output_hidden_states=True
            ).hidden_states
        return hidden


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that are not padding: (b, tokens, d) and (b, tokens, 1) to (b, d)."""
    return (hidden.float() * mask).sum(1) / mask.sum(1)


def rerun(stored: EncoderConfig, wanted: EncoderConfig | None) -> EncoderConfig:
    """`wanted`'s batch size, device and precision, with all of `stored` that its embeddings hang on."""
    if wanted is None:
        return stored
    kept = {"model": stored.model, "max_tokens": stored.max_tokens, "pooling": stored.pooling}
    return wanted.model_copy(update=kept)


def load_encoder(config: EncoderConfig | None = None) -> SentenceEncoder:
    """The encoder that `config` names; without one, the packaged encoder as it was published (mean pooling).

    Raises:
        ModelNotFound: there is no such model here, in the cache or on the hub.
    """
    config = config or EncoderConfig(pooling="mean")
    directory = model_directory(config.model)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    model = AutoModel.from_pretrained(
        directory, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(
        directory, trust_remote_code=False, local_files_only=True
    )
    return SentenceEncoder(model, tokenizer, config)
