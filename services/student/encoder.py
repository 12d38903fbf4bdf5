"""The student in ONNX Runtime: texts in, class scores and unit query vectors out."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from services.platform.errors import CorruptArtifact, IncompatibleArtifacts, InvalidInput
from services.student.bundle import StudentBundle
from services.student.lexical import Words
from services.student.truncation import Direction

INPUTS = ("input_ids", "attention_mask")
OUTPUTS = ("logits", "query")
TOKEN_BUDGET = 8192

CHARACTERS_A_TOKEN = 32
"""A text of more characters than that many a token is cut before it is tokenized, as it is too long
anyway: English has about five, and megabytes of text would hold up everybody else's requests."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenized text or pair.

    Attributes:
        ids: token ids, special tokens included, at most the encoder's `max_tokens`.
        truncated: whether tokens were cut off.
        words: what the release's lexical index looks up; nothing where it has none.
    """

    ids: list[int]
    truncated: bool
    words: Words = ()


class OnnxEncoder:
    """`model.onnx` with its tokenizer.

    A text's results do not depend on the texts encoded beside it (to 1e-4 in fp32: padding is
    masked). Safe to call from several threads.

    Attributes:
        max_tokens: longest sequence, special tokens included.
        pair: whether each input is a pair of texts.
        labels: L, width of the logits.
        dimensions: d, length of a query vector.
    """

    def __init__(
        self,
        model: Path,
        tokenizer: Path,
        *,
        max_tokens: int,
        pair: bool = False,
        threads: int = 1,
        token_budget: int = TOKEN_BUDGET,
    ) -> None:
        """Open the two files.

        Args:
            model: the ONNX file; inputs and outputs as docs/architecture.md says.
            tokenizer: a `tokenizers` file with its post-processor.
            max_tokens: longest sequence, special tokens included.
            pair: whether inputs are pairs.
            threads: that ONNX Runtime computes on; with one it computes on the caller's.
            token_budget: padded tokens that one run of the model may hold.

        Raises:
            CorruptArtifact: a file cannot be read or is not such a model.
        """
        self.max_tokens = max_tokens
        self.pair = pair
        self._budget = max(token_budget, max_tokens)
        self._session = _session(model, threads)
        self._tokenizers = {
            side: _tokenizer(tokenizer, max_tokens, side) for side in ("right", "left")
        }
        self._characters = CHARACTERS_A_TOKEN * max_tokens
        if not self.tokenize([""], [""] if pair else None)[0].ids:
            raise CorruptArtifact(
                f"{tokenizer} adds no special tokens: an empty text would have no token at all.",
                hint="Save the tokenizer with its post-processor.",
            )
        logits, query = self.encode(["."], ["."] if pair else None)
        self.labels = int(logits.shape[1])
        self.dimensions = int(query.shape[1])

    @classmethod
    def of_bundle(
        cls, bundle: StudentBundle, *, threads: int = 1, token_budget: int = TOKEN_BUDGET
    ) -> Self:
        """The encoder of a bundle, its shapes checked against the manifest.

        Raises:
            CorruptArtifact: see `__init__`.
            IncompatibleArtifacts: the model's width is not the manifest's.
        """
        manifest = bundle.manifest
        encoder = cls(
            bundle.model,
            bundle.tokenizer,
            max_tokens=manifest.max_tokens,
            pair=manifest.pair,
            threads=threads,
            token_budget=token_budget,
        )
        found = (encoder.labels, encoder.dimensions)
        expected = (len(manifest.labels), manifest.dimensions)
        if found != expected:
            raise IncompatibleArtifacts(
                f"The model in {bundle.directory} has {found[0]} labels and {found[1]} dimensions, "
                f"its manifest says {expected[0]} and {expected[1]}."
            )
        return encoder

    def tokenize(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        direction: Direction = "right",
    ) -> list[Tokens]:
        """Token ids of each text, cut to `max_tokens` on the `direction` side.

        Of a text of more than `CHARACTERS_A_TOKEN` characters a token that may stand, no more is looked at.

        Raises:
            InvalidInput: pairs are missing, or given where the task has none.
        """
        if self.pair != (pairs is not None):
            expected = "pairs of texts" if self.pair else "single texts"
            raise InvalidInput(f"The student of this task takes {expected}.")
        cut = self._too_long(texts, pairs)
        if any(cut):
            texts = [self._without_gaps(text) for text in texts]
            pairs = None if pairs is None else [self._without_gaps(text) for text in pairs]
            cut = self._too_long(texts, pairs)
            texts = [self._shorten(text, direction) for text in texts]
            pairs = None if pairs is None else [self._shorten(text, direction) for text in pairs]
        inputs: Sequence[Any] = texts if pairs is None else _beside(texts, pairs)
        encodings = self._tokenizers[direction].encode_batch_fast(inputs)
        return [
            Tokens(encoding.ids, was_cut or bool(encoding.overflowing))
            for encoding, was_cut in zip(encodings, cut, strict=True)
        ]

    def _too_long(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[bool]:
        return [max(map(len, both)) > self._characters for both in _beside(texts, pairs)]

    def _without_gaps(self, text: str) -> str:
        """Long runs of spaces are no reason to cut what is said."""
        return " ".join(text.split()) if len(text) > self._characters else text

    def _shorten(self, text: str, direction: Direction) -> str:
        return text[: self._characters] if direction == "right" else text[-self._characters :]

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Class scores (b, L) and unit query vectors (b, d) of any number of texts.

        Raises:
            InvalidInput: see `tokenize`.
        """
        return self.run(self.tokenize(texts, pairs))

    def run(self, tokens: Sequence[Tokens]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Class scores (b, L) and unit query vectors (b, d) of tokenized texts.

        Texts of like length run together, no run holds more padded tokens than the budget.
        """
        parts: list[tuple[list[int], NDArray[np.float32], NDArray[np.float32]]] = []
        for rows in self._batches(tokens):
            logits, query = self._session.run(
                OUTPUTS, self._feed([tokens[row].ids for row in rows])
            )
            if rows == list(range(len(tokens))):
                return logits, query
            parts.append((rows, logits, query))
        if not parts:
            return (
                np.empty((0, self.labels), np.float32),
                np.empty((0, self.dimensions), np.float32),
            )
        order = np.concatenate([rows for rows, _, _ in parts])
        logits = np.empty((len(tokens), parts[0][1].shape[1]), np.float32)
        query = np.empty((len(tokens), parts[0][2].shape[1]), np.float32)
        logits[order] = np.concatenate([part for _, part, _ in parts])
        query[order] = np.concatenate([part for _, _, part in parts])
        return logits, query

    def _batches(self, tokens: Sequence[Tokens]) -> Iterator[list[int]]:
        """Rows that run together: shortest first, within the budget and without much padding."""
        lengths = [len(item.ids) for item in tokens]
        batch: list[int] = []
        longest = 0
        for row in sorted(range(len(lengths)), key=lengths.__getitem__):
            length = lengths[row]
            if batch and (length > longest or length * (len(batch) + 1) > self._budget):
                yield batch
                batch = []
            if not batch:
                # A run costs about as much as 16 tokens do: closer lengths are not worth another.
                longest = 2 * length + 16
            batch.append(row)
        if batch:
            yield batch

    def _feed(self, sequences: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int64]]:
        if len(sequences) == 1:
            ids = np.array([sequences[0]], np.int64)
            return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        width = max(map(len, sequences))
        ids = np.zeros((len(sequences), width), np.int64)
        mask = np.zeros((len(sequences), width), np.int64)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        return {"input_ids": ids, "attention_mask": mask}


def _beside(texts: Sequence[str], pairs: Sequence[str] | None) -> list[tuple[str, ...]]:
    return [(text,) for text in texts] if pairs is None else list(zip(texts, pairs, strict=True))


def _session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Waiting threads would spin on the cores that the event loop and the store need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Every batch has another shape: planned memory for each would only grow.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            os.fspath(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's own errors have no common base
        raise CorruptArtifact(f"{model} is not a model that ONNX Runtime opens: {error}") from error
    inputs = tuple(sorted(value.name for value in session.get_inputs()))
    outputs = {value.name for value in session.get_outputs()}
    if inputs != tuple(sorted(INPUTS)) or not outputs.issuperset(OUTPUTS):
        raise CorruptArtifact(
            f"{model} takes {', '.join(inputs)} and gives {', '.join(sorted(outputs))}; expected "
            f"{', '.join(INPUTS)} and {', '.join(OUTPUTS)}."
        )
    return session


def _tokenizer(path: Path, max_tokens: int, direction: str) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(os.fspath(path))
    except Exception as error:  # `tokenizers` raises a bare Exception
        raise CorruptArtifact(f"{path} is not a tokenizer file: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens, direction=direction)
    return tokenizer
