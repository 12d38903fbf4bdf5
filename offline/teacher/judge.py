"""The judge: a second labeller, for measurement alone, which no reward ever sees.

What generated samples are worth must not be measured with the model that they were optimised against.
The judge therefore differs from the labeller in its rows, in its features, or in both:

- rows: all labelled training rows of the task, where the run itself has a few-shot subset of them, and the
  validation rows too where the task has a separate test split (where it has none, its validation split
  *is* the test split and stays closed);
- features: beside the encoder's embedding, which the labeller reads too, hashed words, pairs of words and
  character sequences (TF-IDF). A text that pleases the labeller's embedding without the words of its
  label gains less with the judge. So it is another model even where no rows are left to set aside.

Hashing needs no vocabulary, so that the judge is three arrays and nothing is pickled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.feature_extraction.text import HashingVectorizer

from offline.configs.section import Section
from offline.teacher.encoder import EncoderConfig, Progress, SentenceEncoder, load_encoder
from offline.teacher.head import SoftmaxHead, load_head, read_description

DESCRIPTION = "judge.json"
HEAD = "judge.safetensors"


class JudgeConfig(Section):
    """How the judge is made.

    On 1,500 to 3,500 training rows of trec and emotion, the word features added 5 points of accuracy to
    the embeddings on other training rows, and nothing on banking77; `strength` hardly mattered
    between 1 and 10, so it is not searched for.

    Attributes:
        word_features: how many columns words and pairs of words are hashed to.
        character_features: how many columns character sequences of 3 to 5 are hashed to.
        strength: inverse regularisation of the head (scikit-learn's `C`).
        folds: of the cross-fitting that its figures come from.
        rows: at most that many rows are used, the same number of each label where there are enough.
    """

    word_features: Annotated[int, Field(ge=1)] = 2048
    character_features: Annotated[int, Field(ge=1)] = 2048
    strength: Annotated[float, Field(gt=0)] = 3.0
    folds: Annotated[int, Field(ge=2)] = 3
    rows: Annotated[int, Field(ge=2)] = 5000


@dataclass(frozen=True, slots=True)
class WordFeatures:
    """Hashed words and character sequences, weighted by how rare they are.

    Attributes:
        words: columns of words and pairs of words.
        characters: columns of character sequences.
        rarity: (words + characters,) float32, the inverse document frequency in the judge's rows.
    """

    words: int
    characters: int
    rarity: NDArray[np.float32]

    @classmethod
    def fit(cls, texts: Sequence[str], words: int, characters: int) -> "WordFeatures":
        """The features with the inverse document frequencies of `texts`."""
        counts = _hashed(texts, words, characters)
        frequency = (counts != 0).sum(0)
        rarity = np.log((1 + len(texts)) / (1 + frequency)) + 1
        return cls(words, characters, rarity.astype(np.float32))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, words + characters) float32, rows of unit length (zero where a text has no word)."""
        weighted = _hashed(texts, self.words, self.characters) * self.rarity
        lengths = np.linalg.norm(weighted, axis=1, keepdims=True)
        unit: NDArray[np.float32] = weighted / np.maximum(lengths, np.float32(1e-12))
        return unit


@dataclass(frozen=True, slots=True)
class Judge:
    """Gives a probability a label, as the labeller does; see the module for what it is for.

    Attributes:
        labels: label names, in the order of the probabilities.
        identity: encoder and hash of the head.
        encoder: the frozen encoder.
        words: the features beside its embeddings.
        head: the calibrated head on both.
    """

    labels: tuple[str, ...]
    identity: str
    encoder: SentenceEncoder
    words: WordFeatures
    head: SoftmaxHead

    @property
    def parameters(self) -> int:
        """Of encoder and head."""
        return self.encoder.parameters + self.head.parameters

    def embed(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """(n, dimensions + words + characters) float32: what `probabilities` takes."""
        embeddings = self.encoder.embed(texts, pairs, progress=progress)
        return judge_features(embeddings, self.words, texts, pairs)

    def probabilities(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated probabilities (n, labels) float32 for what `embed` gave."""
        return self.head.probabilities(embeddings)


def judge_features(
    embeddings: NDArray[np.float32],
    words: WordFeatures,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
) -> NDArray[np.float32]:
    """Embeddings and word features side by side."""
    return np.hstack([embeddings, words(joined(texts, pairs))])


def joined(texts: Sequence[str], pairs: Sequence[str] | None) -> list[str]:
    """Texts, or pairs as one text of two lines."""
    if pairs is None:
        return list(texts)
    return [f"{text}\n{pair}" for text, pair in zip(texts, pairs, strict=True)]


def load_judge(directory: Path, encoder: EncoderConfig | None = None) -> Judge:
    """The judge of a finished labeller stage.

    Args:
        directory: of the stage.
        encoder: how the encoder is run, where it is not to be as in the stage; its model stays the
            stage's.

    Raises:
        CorruptArtifact: files are missing or damaged.
        ModelNotFound: the encoder is not here any more.
    """
    found = read_description(directory / DESCRIPTION)
    stored = EncoderConfig.model_validate(found["encoder"])
    config = stored if encoder is None else encoder.model_copy(update={"model": stored.model})
    head, arrays = load_head(directory / HEAD)
    words = WordFeatures(found["word_features"], found["character_features"], arrays["rarity"])
    return Judge(tuple(found["labels"]), found["identity"], load_encoder(config), words, head)


def _hashed(texts: Sequence[str], words: int, characters: int) -> NDArray[np.float32]:
    """(n, words + characters) signed counts; the hash is MurmurHash3, the same on every machine."""
    parts = [
        HashingVectorizer(n_features=words, ngram_range=(1, 2), norm=None, dtype=np.float32),
        HashingVectorizer(
            n_features=characters,
            analyzer="char_wb",
            ngram_range=(3, 5),
            norm=None,
            dtype=np.float32,
        ),
    ]
    return np.hstack([part.transform(list(texts)).toarray() for part in parts])
