"""A frozen sentence encoder: mean-pooled embeddings of texts, pairs and single tokens."""

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
from offline.teacher.pretrained import PACKAGED, model_directory

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class EncoderConfig(Section):
    """Which encoder, and how it is run.

    Attributes:
        model: the packaged encoder, a hub name, or a directory.
        max_tokens: longer texts are cut.
        batch_size: rows in one forward pass.
        device: a torch device.
        precision: `float32`, or `bfloat16` (twice as fast on processors that have it; embeddings
            differ in the third digit).
    """

    model: str = PACKAGED
    max_tokens: Annotated[int, Field(ge=4)] = 128
    batch_size: Annotated[int, Field(ge=1)] = 64
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"


class SentenceEncoder:
    """A frozen encoder and its tokenizer."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: EncoderConfig
    ) -> None:
        model.train(False).requires_grad_(False)
        self.model = cast(torch.nn.Module, model).to(config.device)
        self.tokenizer = tokenizer
        self.config = config
        self.dimensions = int(model.config.hidden_size)
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
            (n, dimensions) float32: the mean of the last layer over the text's tokens, normalised.
        """
        output = np.empty((len(texts), self.dimensions), dtype=np.float32)
        order = np.argsort([-len(text) for text in texts], kind="stable")
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
        """What the encoder gives for single tokens of its vocabulary, (n, dimensions) float32.

        Each token stands alone between the special tokens; the row is the last layer's output at its
        place, not normalised. Unknown tokens give the unknown token's row.
        """
        ids = cast(list[int], self.tokenizer.convert_tokens_to_ids(list(tokens)))
        frame = cast(list[int], self.tokenizer("a")["input_ids"])
        special = self.tokenizer.get_special_tokens_mask(frame, already_has_special_tokens=True)
        place = special.index(0)
        before, after = frame[:place], frame[place + 1 :]
        framed = [[*before, token, *after] for token in ids]
        output = np.empty((len(ids), self.dimensions), dtype=np.float32)
        size = self.config.batch_size * 8
        for start in range(0, len(ids), size):
            batch = torch.tensor(framed[start : start + size], device=self.config.device)
            hidden = self._hidden(input_ids=batch, attention_mask=torch.ones_like(batch))
            output[start : start + size] = hidden[:, place].float().cpu().numpy()
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
        hidden = self._hidden(**batch).float()
        mask = batch["attention_mask"].unsqueeze(-1)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        unit: NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return unit

    @torch.inference_mode()
    def _hidden(self, **inputs: torch.Tensor) -> torch.Tensor:
        low = self.config.precision == "bfloat16"
        with torch.autocast(self.config.device.split(":")[0], torch.bfloat16, enabled=low):
            hidden: torch.Tensor = self.model(**inputs).last_hidden_state
        return hidden


def load_encoder(config: EncoderConfig | None = None) -> SentenceEncoder:
    """The encoder that `config` names.

    Raises:
        ModelNotFound: there is no such model here, in the cache or on the hub.
    """
    config = config or EncoderConfig()
    directory = model_directory(config.model)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    model = AutoModel.from_pretrained(
        directory, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(
        directory, trust_remote_code=False, local_files_only=True
    )
    return SentenceEncoder(model, tokenizer, config)
