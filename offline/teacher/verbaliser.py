"""A language model as labeller, through verbalisers: how likely each label's words are behind a text.

The text is put into a template; a label's score is the log-probability of its words' tokens behind it, of a
causal model as what follows, of an encoder-decoder as what its decoder writes. Two corrections, both on unless
switched off: the mean over the tokens instead of their sum, so that long names are not at a disadvantage;
and *contextual calibration* (Zhao et al. 2021, "Calibrate Before Use"): what the model says of texts without
content is divided out, so that it does not answer by the frequency of its words.

Texts whose tokens are equally many share a batch, so that nothing is padded in front and no score depends on who
else was in the batch (but for rounding). A text is read once and its keys and values serve all labels.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from offline.teacher.calibration import softmax
from offline.teacher.encoder import Progress
from offline.teacher.framing import Framing
from offline.teacher.language_model import load_language_model, prompted
from offline.teacher.precision import settled
from offline.teacher.pretrained import model_directory
from offline.teacher.template import Template
from offline.teacher.text_scorer import LabelledRows, batches
from offline.teacher.verbaliser_config import Asked, VerbaliserConfig
from services.platform.errors import InvalidConfig

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Texts that say nothing, of Zhao et al."""

_BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A language model, frozen, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_for_verbaliser(config: VerbaliserConfig) -> LanguageModel:
    """The language model that `config` names.

    Raises:
        ModelNotFound: see `model_directory`.
        InvalidConfig: it is no language model.
    """
    precision = settled(config.precision, config.device)
    return LanguageModel(
        *load_language_model(model_directory(config.model), precision, config.device)
    )


class Verbaliser:
    """A language model and how it is asked; a `TextModel`."""

    def __init__(self, loaded: LanguageModel, asked: Asked, config: VerbaliserConfig) -> None:
        """Put a model to use.

        Raises:
            InvalidConfig: the template is wrong, or two labels have the same tokens.
        """
        model, tokenizer = loaded.model, loaded.tokenizer
        self.asked = asked
        self.config = config
        self.parameters = sum(tensor.numel() for tensor in model.parameters())
        self._framing = Framing(tokenizer, False)
        self._model = prompted(model, self._framing)
        self._decodes = bool(model.config.is_encoder_decoder)
        self._positions: int | None = getattr(model.config, "max_position_embeddings", None)
        self._around = self._framing.around()
        self._template = Template.of(
            config.template, asked.words, pair=asked.pair, asks=self._decodes
        )
        self._examples = "".join(
            f"{self._template(text, pair)} {asked.words[label]}{_BETWEEN}"
            for text, pair, label in asked.examples
        )
        self._words = self._tokens_of_words()

    def with_prior(self) -> "Verbaliser":
        """The same with what the model says of texts without content divided out."""
        blank = list(CONTENT_FREE)
        scores = self.scores(blank, blank if self.asked.pair else None)
        prior = np.log(softmax(scores.astype(np.float64)).mean(0))
        self.asked = Asked(
            self.asked.words, self.asked.pair, self.asked.examples, tuple(prior.tolist())
        )
        return self

    @torch.inference_mode()
    def scores(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """(n, labels) float32.

        Raises:
            InvalidConfig: the model has no room for a text behind its template and examples.
        """
        seconds: Sequence[str | None] = pairs or [None] * len(texts)
        prompts = [self._prompt(*both) for both in zip(texts, seconds, strict=True)]
        ids, mask = (tensor.to(self._model.device) for tensor in padded(self._words))
        # Labels of one token each are read off what is said of the next token.
        rows_a_text = 1 if ids.shape[1] == 1 else len(ids)
        size = max(1, self.config.batch_size // rows_a_text)
        output = np.empty((len(texts), len(ids)), dtype=np.float32)
        done = 0
        for rows in batches([len(prompt) for prompt in prompts], size, equal=True):
            read = torch.tensor([prompts[row] for row in rows], device=self._model.device)
            found = self._continuations(read, ids, mask)
            if self.config.length_normalised:
                found = found / mask.sum(1)
            output[rows] = found.cpu().numpy()
            done += len(rows)
            if progress is not None:
                progress(done, len(texts))
        return output - np.array(self.asked.prior, dtype=np.float32)

    def _continuations(self, read: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """(p, labels) log-probabilities of the labels' words (labels, t) behind (p, length) prompts."""
        context, first = self._model.open(self._model.embed(read))
        found = first.logits[:, -1].float().log_softmax(-1)[:, ids[:, 0]]
        if ids.shape[1] == 1:
            return found
        count, labels = len(read), len(ids)
        context.select(torch.arange(count, device=read.device).repeat_interleave(labels))
        rest = self._model.read(ids[:, :-1].repeat(count, 1), context)
        places = ids[:, 1:].repeat(count, 1).unsqueeze(-1)
        later = rest.logits.float().log_softmax(-1).gather(-1, places).squeeze(-1)
        later = (later * mask[:, 1:].repeat(count, 1)).sum(1)
        return found + later.view(count, labels)

    def _prompt(self, text: str, pair: str | None) -> list[int]:
        cut = (self._cut(text), None if pair is None else self._cut(pair))
        before, after = self._around
        ids = [*before, *self._framing.ids(self._examples + self._template(*cut))]
        if self._decodes:
            ids += after
        # An empty text behind a template of nothing else still needs a token to be read.
        ids = ids or [self._framing.filler]
        longest = 0 if self._decodes else max(map(len, self._words))
        if self._positions is not None and len(ids) + longest > self._positions:
            raise InvalidConfig(
                f"A text of {len(ids)} tokens with its template and examples and a label of {longest} need more"
                f" than the {self._positions} positions of {self.config.model}.",
                hint="Lower labeller.verbaliser.max_tokens or labeller.verbaliser.shots.",
            )
        return ids

    def _cut(self, text: str) -> str:
        found = self._framing.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True
        )["offset_mapping"]
        return (
            text[: found[self.config.max_tokens - 1][1]]
            if len(found) > self.config.max_tokens
            else text
        )

    def _tokens_of_words(self) -> list[list[int]]:
        """Token ids of each label's words where they stand."""
        tail = "" if self._decodes else self._template.tail
        start = self._framing.ids(tail) if tail else []
        found: dict[tuple[int, ...], str] = {}
        for words in self.asked.words:
            whole = self._framing.ids(words if self._decodes else f"{tail} {words}")
            # A tokenizer that joins the tail with the words is given the words alone.
            ids = whole[len(start) :] if whole[: len(start)] == start else []
            tokens = tuple(ids or self._framing.ids(f" {words}"))
            if not tokens or tokens in found:
                other = f"as {found[tokens]!r} has" if tokens else "none at all"
                raise InvalidConfig(
                    f"To {self.config.model} the words {words!r} have the same tokens {other}.",
                    hint="Give the labels other words under labeller.verbaliser.words.",
                )
            found[tokens] = words
        return [list(tokens) for tokens in found]


def fit_verbaliser(
    loaded: LanguageModel,
    rows: LabelledRows,
    label_texts: Mapping[str, str],
    config: VerbaliserConfig,
    *,
    seed: int,
) -> Verbaliser:
    """A language model as labeller, its examples taken from labelled rows.

    Args:
        loaded: the language model.
        rows: of the run.
        label_texts: each label's name and what describes it.
        config: which model, and how it is asked.
        seed: of the choice of examples and their order.

    Raises:
        InvalidConfig: words are given for a label that is not there; see `Verbaliser`.
    """
    unknown = sorted(set(config.words) - set(label_texts))
    if unknown:
        raise InvalidConfig(
            f"labeller.verbaliser.words names {unknown[0]!r}, which is no label of the task.",
            hint=f"The labels are {', '.join(label_texts)}.",
        )
    words = tuple(config.words.get(label, text) for label, text in label_texts.items())
    random = np.random.default_rng(seed)
    chosen = [
        row
        for label in range(len(words))
        for row in random.permutation(np.flatnonzero(rows.gold == label))[: config.shots]
    ]
    examples = tuple(
        (rows.texts[row], None if rows.pairs is None else rows.pairs[row], int(rows.gold[row]))
        for row in random.permutation(np.array(chosen, dtype=np.int64))
    )
    asked = Asked(words, rows.pairs is not None, examples, (0.0,) * len(words))
    verbaliser = Verbaliser(loaded, asked, config)
    return verbaliser.with_prior() if config.contextual else verbaliser


def verbaliser_identity(verbaliser: Verbaliser, temperature: float) -> str:
    """Name of a labeller: its model, and 12 hex digits of the hash of how it is asked."""
    config = verbaliser.config
    how = config.model_dump(include={"template", "length_normalised", "max_tokens"})
    told = json.dumps([asdict(verbaliser.asked), how, temperature], sort_keys=True)
    return f"{Path(config.model).name}/verbaliser-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def padded(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids (n, t), filled up on the right with zeros, and (n, t) one where a token is."""
    longest = max(map(len, sequences))
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros(len(sequences), longest)
    for row, tokens in enumerate(sequences):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return ids, mask
