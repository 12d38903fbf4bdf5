"""Making a labeller of any kind from the run's labelled rows, and writing it down."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.teacher.classifier import ClassifierConfig, SequenceClassifier
from offline.teacher.classifier_files import classifier_identity, save_classifier
from offline.teacher.classifier_tuning import fit_classifier
from offline.teacher.encoder import Progress, SentenceEncoder
from offline.teacher.head import HeadScorer, fit_head, head_identity, save_head
from offline.teacher.labeller import HEAD, LabellerConfig
from offline.teacher.soft_labels import Labeller
from offline.teacher.text_scorer import FittedScorer, LabelledRows, fit_scorer
from offline.teacher.verbaliser import (
    Verbaliser,
    fit_verbaliser,
    load_for_verbaliser,
    verbaliser_identity,
)
from offline.teacher.verbaliser_config import VerbaliserConfig


@dataclass(frozen=True, slots=True)
class FittedLabeller:
    """A labeller, what cross-fitting says of it, and what is kept of it.

    Attributes:
        labeller: fitted on all rows.
        cross_fitted: (n, labels) float32, for each row by a labeller that did not see its fold.
        folds: (n,) fold of every row.
        details: what its description says of this kind.
        save: writes its files into a directory.
    """

    labeller: Labeller
    cross_fitted: NDArray[np.float32]
    folds: NDArray[np.int64]
    details: Mapping[str, Any]
    save: Callable[[Path], None]


def fit_labeller(
    rows: LabelledRows,
    embeddings: NDArray[np.float32],
    label_texts: Mapping[str, str],
    encoder: SentenceEncoder,
    config: LabellerConfig,
    *,
    seed: int,
    progress: Progress,
) -> FittedLabeller:
    """The labeller that `config` describes.

    Args:
        rows: the run's labelled rows.
        embeddings: (n, d) of the rows, by the encoder.
        label_texts: each label's name and what describes it, in the order of the probabilities.
        encoder: what embeds.
        config: the kind and its section.
        seed: of the folds, and of all that is drawn.
        progress: called with (done, total); not for an encoder, whose head is fitted in no time.

    Raises:
        ModelNotFound: a model is not to be had; see `model_directory`.
        InvalidConfig: a model does not suit the kind, the labels or the texts.
    """
    labels, folds = tuple(label_texts), config.folds
    if config.classifier is not None:
        classifiers = _fit_classifier(rows, label_texts, config.classifier, folds, seed, progress)
        classifier, temperature = classifiers.scorer.model, classifiers.scorer.temperature
        return FittedLabeller(
            Labeller(
                labels, classifier_identity(classifier, temperature), encoder, classifiers.scorer
            ),
            classifiers.cross_fitted,
            classifiers.folds,
            {
                "temperature": temperature,
                "classifier": config.classifier.model_dump(),
                "columns": list(classifier.columns),
            },
            lambda directory: save_classifier(classifier, directory),
        )
    if config.verbaliser is not None:
        verbalisers = _fit_verbaliser(rows, label_texts, config.verbaliser, folds, seed, progress)
        verbaliser, temperature = verbalisers.scorer.model, verbalisers.scorer.temperature
        return FittedLabeller(
            Labeller(
                labels, verbaliser_identity(verbaliser, temperature), encoder, verbalisers.scorer
            ),
            verbalisers.cross_fitted,
            verbalisers.folds,
            {
                "temperature": temperature,
                "verbaliser": config.verbaliser.model_dump(),
                "asked": asdict(verbaliser.asked),
            },
            # Nothing was learnt but what the description says.
            lambda directory: None,
        )
    heads = fit_head(
        embeddings,
        rows.gold,
        rows.forms,
        len(labels),
        strengths=config.strengths,
        folds=folds,
        seed=seed,
    )
    head = heads.head
    return FittedLabeller(
        Labeller(labels, head_identity(encoder.identity, head), encoder, HeadScorer(head)),
        heads.cross_fitted,
        heads.folds,
        {"temperature": head.temperature, "strength": heads.strength},
        lambda directory: save_head(head, directory / HEAD),
    )


def _fit_classifier(
    rows: LabelledRows,
    label_texts: Mapping[str, str],
    config: ClassifierConfig,
    folds: int,
    seed: int,
    progress: Progress,
) -> FittedScorer[SequenceClassifier]:
    def fit(rows: LabelledRows, seed: int, progress: Progress) -> SequenceClassifier:
        return fit_classifier(rows, label_texts, config, seed=seed, progress=progress)

    learns = config.tuning != "none"
    labels = len(label_texts)
    return fit_scorer(fit, rows, labels, learns=learns, folds=folds, seed=seed, progress=progress)


def _fit_verbaliser(
    rows: LabelledRows,
    label_texts: Mapping[str, str],
    config: VerbaliserConfig,
    folds: int,
    seed: int,
    progress: Progress,
) -> FittedScorer[Verbaliser]:
    loaded = load_for_verbaliser(config)

    def fit(rows: LabelledRows, seed: int, progress: Progress) -> Verbaliser:
        return fit_verbaliser(loaded, rows, label_texts, config, seed=seed)

    learns = config.shots > 0
    labels = len(label_texts)
    return fit_scorer(fit, rows, labels, learns=learns, folds=folds, seed=seed, progress=progress)
