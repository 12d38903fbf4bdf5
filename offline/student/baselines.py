"""The systems that the student is compared with: each has every lever but the one under test.

    fine_tuned              the labelled rows with their gold labels
    distilled               the labelled rows with the labeller's soft labels and embeddings
    distilled_on_knowledge  the student's own items and steps, without retrieval
    tfidf                   n-grams and logistic regression on the labelled rows

All three networks have the student's sizes and vocabulary, and begin from what it begins from.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from offline.configs.section import Section
from offline.student.config import StudentConfig
from offline.student.tfidf import TfidfClassifier, TfidfConfig, fit_tfidf
from services.platform.errors import CorruptArtifact
from services.student.bundle import load_bundle
from services.student.encoder import OnnxEncoder
from services.student.mixing import MixingParameters, head_distribution

FINE_TUNED = "fine_tuned"
DISTILLED = "distilled"
DISTILLED_ON_KNOWLEDGE = "distilled_on_knowledge"
TFIDF = "tfidf"
NETWORKS = (FINE_TUNED, DISTILLED, DISTILLED_ON_KNOWLEDGE)
SYSTEMS = (*NETWORKS, TFIDF)

_ROWS = "rows.parquet"
_SETTINGS = "tfidf.json"


class BaselinesConfig(Section):
    """The baselines.

    Attributes:
        student: sizes and training that they share with the student; the run's section `student`.
        fine_tuned_steps: of the optimizer; the labelled rows alone are soon learned by heart.
        distilled_steps: the same for distillation on them.
        tfidf: features and candidates.
    """

    student: StudentConfig = StudentConfig()
    fine_tuned_steps: Annotated[int, Field(ge=1)] = 300
    distilled_steps: Annotated[int, Field(ge=1)] = 500
    tfidf: TfidfConfig = TfidfConfig()


class Baseline(Protocol):
    """A fitted system."""

    @property
    def parameters(self) -> int: ...

    def probabilities(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """(n, labels) of n texts or pairs."""
        ...


@dataclass(frozen=True, slots=True)
class StudentAlone:
    """A student that answers by its head."""

    encoder: OnnxEncoder
    mixing: MixingParameters
    parameters: int

    def probabilities(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        logits, _ = self.encoder.encode(texts, pairs)
        found: NDArray[np.float32] = head_distribution(logits, self.mixing)
        return found


def load_baselines(directory: Path) -> dict[str, Baseline]:
    """The systems of a finished baselines stage, by name.

    Raises:
        CorruptArtifact: files are missing or damaged.
    """
    found: dict[str, Baseline] = {}
    for name in NETWORKS:
        bundle = load_bundle(directory / name)
        found[name] = StudentAlone(
            OnnxEncoder.of_bundle(bundle), bundle.manifest.mixing, bundle.manifest.parameters
        )
    found[TFIDF] = load_tfidf(directory / TFIDF)
    return found


def save_tfidf(
    directory: Path,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    gold: NDArray[np.int64],
    labels: int,
    config: TfidfConfig,
    *,
    seed: int,
) -> TfidfClassifier:
    """Fit the classifier and keep what it is fitted from; nothing of scikit-learn's is written."""
    seconds: Sequence[str | None] = pairs or [None] * len(texts)
    pq.write_table(
        pa.table(
            {
                "text": pa.array(texts, pa.string()),
                "text_pair": pa.array(seconds, pa.string()),
                "gold": pa.array(gold, pa.int64()),
            }
        ),
        directory / _ROWS,
    )
    classifier = fit_tfidf(texts, pairs, gold, labels, config, seed=seed)
    # The strength that was chosen is the only candidate from now on.
    settled = config.model_copy(update={"strengths": (classifier.fitted.strength,)})
    settings = {
        "labels": labels,
        "pair": pairs is not None,
        "seed": seed,
        "config": settled.model_dump(),
    }
    (directory / _SETTINGS).write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return classifier


def load_tfidf(directory: Path) -> TfidfClassifier:
    """The classifier of `save_tfidf`, fitted again from its rows.

    Raises:
        CorruptArtifact: files are missing or damaged.
    """
    try:
        settings = json.loads((directory / _SETTINGS).read_text(encoding="utf-8"))
        rows = pq.read_table(directory / _ROWS)
        config = TfidfConfig.model_validate(settings["config"])
        pairs = rows["text_pair"].to_pylist() if settings["pair"] else None
        gold = rows["gold"].to_numpy()
        labels, seed = int(settings["labels"]), int(settings["seed"])
    except (OSError, ValueError, KeyError, pa.ArrowInvalid, ValidationError) as error:
        raise CorruptArtifact(f"{directory} holds no TF-IDF baseline: {error}.") from error
    return fit_tfidf(rows["text"].to_pylist(), pairs, gold, labels, config, seed=seed)
