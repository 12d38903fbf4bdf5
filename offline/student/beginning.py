"""What all students of a run begin from: vocabulary and weights, under the parameter limit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from offline.student.config import StudentConfig
from offline.student.model import StudentShape, affordable_tokens, make_student
from offline.student.network import StudentNetwork, parameter_count
from offline.student.pretrained import word_embeddings
from offline.student.starting_encoder import StudentEncoderConfig, load_starting_encoder
from offline.student.token_codes import interleaved, quantise
from offline.student.vocabulary import (
    Vocabulary,
    is_prunable,
    prune_vocabulary,
    token_embeddings,
    whole_vocabulary,
)
from offline.teacher.labeller import Labeller
from services.platform.errors import InvalidConfig


@dataclass(frozen=True, slots=True)
class Beginning:
    """What all students of a run start from.

    Attributes:
        vocabulary: tokens, and the tokenizer that gives them.
        limit: most parameters that a student may have.
        make: a new student, called with `dropout` and `seed` by name.
        encoder: what the weights come from, for the model card; None from scratch.
    """

    vocabulary: Vocabulary
    limit: int
    make: Callable[..., StudentNetwork]
    encoder: dict[str, Any] | None = None


def begin(
    labeller: Labeller, texts: Sequence[str], labels: int, config: StudentConfig
) -> Beginning:
    """From scratch, or from the encoder that `config` names.

    Args:
        labeller: whose parameters the limit is a share of.
        texts: all that the student may see: of the task (not its test split) and the knowledge.
        labels: number of labels.
        config: sizes and limit.

    Raises:
        InvalidConfig: the limit leaves no room for layers or characters, or the encoder does not suit.
        ModelNotFound: the encoder is not to be had.
    """
    if config.encoder is None:
        return _from_scratch(labeller, texts, labels, config)
    return _from_encoder(config.encoder, labeller, texts, labels, config)


def _from_scratch(
    labeller: Labeller, texts: Sequence[str], labels: int, config: StudentConfig
) -> Beginning:
    """Prune the vocabulary under the parameter limit and take the token embeddings from the labeller."""
    sizes, limit = config.shape, config.parameter_limit(labeller.parameters)
    own = affordable_tokens(sizes, labels, limit)
    vocabulary = prune_vocabulary(
        labeller.encoder.tokenizer, texts, limit=own, further=sizes.coded if sizes.codes else 0
    )
    embeddings = token_embeddings(labeller.encoder, vocabulary, sizes.embedding)
    codes = None
    if sizes.codes:
        embeddings = embeddings[:, interleaved(sizes.embedding, sizes.codes)]
        codes = quantise(embeddings, sizes.codes)
    shape = StudentShape(len(vocabulary), vocabulary.own, labels, sizes)
    return Beginning(vocabulary, limit, partial(make_student, shape, embeddings, codes))


def _from_encoder(
    start: StudentEncoderConfig,
    labeller: Labeller,
    texts: Sequence[str],
    labels: int,
    config: StudentConfig,
) -> Beginning:
    """Take the encoder, with the tokens that the texts use where its tokenizer lets others go."""
    sizes, limit = config.shape, config.parameter_limit(labeller.parameters)
    encoder = load_starting_encoder(start, sizes.max_tokens)
    words = word_embeddings(encoder.model)
    whole = encoder.student(
        labels, sizes.query, sizes.max_tokens, rate=start.learning_rate, dropout=0.0, seed=0
    )
    fixed = parameter_count(whole) - words.weight.numel()
    affordable = (limit - fixed) // words.embedding_dim
    prune = encoder.prunable and is_prunable(encoder.tokenizer)
    if affordable < (1 if prune else words.num_embeddings):
        tokens = words.num_embeddings
        if prune:
            tokens = len(prune_vocabulary(encoder.tokenizer, texts, limit=tokens))
        needed = fixed + tokens * words.embedding_dim
        raise InvalidConfig(
            f"A student from {start.model} has {fixed:,} parameters without its token embeddings, and {needed:,}"
            f" with those of {tokens:,} tokens; {limit:,} is the limit.",
            hint=f"{config.raised(needed, labeller.parameters)}, or lower student.encoder.layers.",
        )
    if prune:
        vocabulary = prune_vocabulary(encoder.tokenizer, texts, limit=affordable)
        encoder = encoder.pruned(vocabulary)
    else:
        vocabulary = whole_vocabulary(encoder.tokenizer)
    make = partial(encoder.student, labels, sizes.query, sizes.max_tokens, rate=start.learning_rate)
    told = {
        "model": Path(start.model).name,
        "layers": start.layers or encoder.of_layers,
        "of_layers": encoder.of_layers,
        "learning_rate": start.learning_rate,
    }
    return Beginning(vocabulary, limit, make, told)
