"""Stage of the benchmark: static embeddings distilled from the teacher's encoder with model2vec.

Every token of the encoder's vocabulary gets what the encoder gives for it alone, reduced by PCA and
weighted by its rank (https://github.com/MinishLab/model2vec). They know nothing of the task, so that one
set of them serves all cells.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from model2vec import StaticModel
from model2vec.distill import distill_from_model
from numpy.typing import NDArray

from offline.bench.static_config import StaticConfig
from offline.pipeline.stage import StageContext
from offline.report.summary import size_of
from offline.teacher.encoder import EncoderConfig, load_encoder

MODEL = "model"


def run(inputs: Mapping[str, Path], config: StaticConfig, context: StageContext) -> dict[str, Any]:
    """Write `model/`, a directory of model2vec's.

    Raises:
        ModelNotFound: the encoder is not here.
    """
    encoder = load_encoder(EncoderConfig(model=config.encoder, pooling="mean"))
    # Its progress bars would come between the events that a run logs.
    with contextlib.redirect_stderr(io.StringIO()):
        static = distill_from_model(
            cast(Any, encoder.model),
            cast(Any, encoder.tokenizer),
            device="cpu",
            pca_dims=config.dimensions,
            quantize_to="float32",
        )
    # Where the encoder lies here is nothing that the embeddings hang on.
    static.config["tokenizer_name"] = encoder.identity
    static.save_pretrained(context.directory / MODEL, model_name=encoder.identity)
    return {"tokens": int(static.embedding.shape[0]), "parameters": int(static.embedding.size)}


class StaticEmbeddings:
    """The embeddings at work.

    Attributes:
        parameters: weights of all tokens.
        bytes: of the files.
    """

    def __init__(self, directory: Path) -> None:
        """`directory` of the finished stage."""
        self._model = StaticModel.from_pretrained(directory / MODEL)
        self.parameters = int(self._model.embedding.size)
        self.bytes = size_of(directory / MODEL)

    def __call__(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """(n, d) means of the tokens' embeddings, of unit length; of a pair, both, their distance and product."""
        first = self._encode(texts)
        if pairs is None:
            return first
        second = self._encode(pairs)
        return np.concatenate([first, second, np.abs(first - second), first * second], axis=1)

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        found = self._model.encode(list(texts), show_progress_bar=False, use_multiprocessing=False)
        return np.asarray(found, dtype=np.float32)
