"""The systems of the benchmark: what each is measured from, and how it is opened.

teacher                      the labeller
fine_tuned                   the labelled rows with their gold labels
distilled                    the labelled rows with the teacher's soft labels and embeddings
distilled_on_unlabelled      labelled rows and unlabelled texts (regime `unlabelled` alone)
distilled_on_knowledge       the student's own items and steps; no retrieval loss, no store
retrieval_train_only         ours by its head alone: retrieval in training, none at inference, the ablation
                             "without retrieval" of ReAugKD (Zhang et al. 2023)
knn                          ours with the store's share of every answer at 1
tfidf, tfidf_on_knowledge    n-grams and logistic regression on labelled rows; on knowledge items
static, static_on_knowledge  model2vec from the teacher's encoder, the same two
retrikt                      the release as it serves; the weights of its lexical index count among the store's bytes
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from offline.bench import distilled_on_unlabelled, smaller_store
from offline.bench.answering import Alone, Answering, NeighboursAlone, Released, Teacher
from offline.bench.cells import Regime
from offline.bench.finished_cell import FinishedCell
from offline.bench.linear import (
    BYTES_A_WEIGHT,
    static_on_items,
    static_on_labels,
    tfidf_on_items,
)
from offline.bench.variants import Variant
from offline.report.evaluation import OURS, TEACHER
from offline.report.summary import size_of
from offline.student.baselines import (
    DISTILLED,
    DISTILLED_ON_KNOWLEDGE,
    FINE_TUNED,
    TFIDF,
    StudentAlone,
)
from services.student.bundle import load_bundle
from services.student.encoder import OnnxEncoder

STATIC_STAGE = "static_embeddings"
SMALLER_STORE = smaller_store.NAME

_SERVING = ("services.student.predictor", "services.store.backends.edge")
_NETWORK = ("services.student.encoder", "services.student.mixing")


@dataclass(frozen=True, slots=True)
class System:
    """How a system comes to be measured.

    Attributes:
        name: in rows and tables.
        stages: that it is measured from.
        open: the system at work in a cell whose stages are there.
        code: modules that compute its answers, beside those of its stages.
        static: whether it needs the static embeddings.
        regimes: in which it exists.
        revision: raised by hand when how it is opened or measured here changes.
    """

    name: str
    stages: tuple[str, ...]
    open: Callable[[FinishedCell], Answering]
    code: tuple[str, ...]
    static: bool = False
    regimes: tuple[Regime, ...] = ("labels", "unlabelled")
    revision: int = 1


def static_is_installed() -> bool:
    """Whether model2vec and what it distils with are here; they come with `retrikt[dev]`."""
    return all(find_spec(name) is not None for name in ("model2vec", "skeletoken"))


def _teacher(cell: FinishedCell) -> Answering:
    return Teacher(cell.labeller, BYTES_A_WEIGHT * cell.labeller.parameters)


def _network(name: str) -> Callable[[FinishedCell], Answering]:
    def opened(cell: FinishedCell) -> Answering:
        directory = cell.path("baselines", name)
        return Alone(cell.baselines[name], size_of(directory))

    return opened


def _tfidf(cell: FinishedCell) -> Answering:
    found = cell.baselines[TFIDF]
    return Alone(found, BYTES_A_WEIGHT * found.parameters)


def _distilled_on_unlabelled(cell: FinishedCell) -> Answering:
    return _head_of(cell.path(distilled_on_unlabelled.NAME, distilled_on_unlabelled.BUNDLE))


def _retrieval_train_only(cell: FinishedCell) -> Answering:
    return _head_of(cell.bundle)


def _head_of(directory: Path) -> Answering:
    bundle = load_bundle(directory)
    alone = StudentAlone(
        OnnxEncoder.of_bundle(bundle), bundle.manifest.mixing, bundle.manifest.parameters
    )
    return Alone(alone, size_of(directory))


def _knn(cell: FinishedCell) -> Answering:
    return NeighboursAlone(cell.predictor, size_of(cell.bundle), cell.store_bytes)


def _ours(cell: FinishedCell) -> Answering:
    return Released(cell.predictor, size_of(cell.bundle), cell.store_bytes)


def _tfidf_on_knowledge(cell: FinishedCell) -> Answering:
    return tfidf_on_items(cell.items, cell.config.baselines.tfidf, seed=cell.seed)


def _static(cell: FinishedCell) -> Answering:
    train = cell.task.examples("train")
    gold, labels = cell.task.label_ids(train), len(cell.task.labels)
    return static_on_labels(cell.static_embeddings, train, gold, labels, seed=cell.seed)


def _static_on_knowledge(cell: FinishedCell) -> Answering:
    return static_on_items(cell.static_embeddings, cell.items, seed=cell.seed)


_LINEAR = ("offline.bench.linear",)

SYSTEMS = (
    System(TEACHER, ("prepare", "labeller"), _teacher, ("offline.teacher.labeller",)),
    System(FINE_TUNED, ("prepare", "baselines"), _network(FINE_TUNED), _NETWORK),
    System(DISTILLED, ("prepare", "baselines"), _network(DISTILLED), _NETWORK),
    System(
        distilled_on_unlabelled.NAME,
        ("prepare", distilled_on_unlabelled.NAME),
        _distilled_on_unlabelled,
        _NETWORK,
        regimes=("unlabelled",),
    ),
    System(
        DISTILLED_ON_KNOWLEDGE,
        ("prepare", "baselines"),
        _network(DISTILLED_ON_KNOWLEDGE),
        _NETWORK,
    ),
    System("retrieval_train_only", ("prepare", "index"), _retrieval_train_only, _NETWORK),
    System("knn", ("prepare", "index"), _knn, _SERVING),
    System(TFIDF, ("prepare", "baselines"), _tfidf, ("offline.student.tfidf",)),
    System(
        "tfidf_on_knowledge", ("prepare", "labeller", "knowledge"), _tfidf_on_knowledge, _LINEAR
    ),
    System("static", ("prepare", "labeller"), _static, _LINEAR, static=True),
    System(
        "static_on_knowledge",
        ("prepare", "labeller", "knowledge"),
        _static_on_knowledge,
        _LINEAR,
        static=True,
    ),
    System(OURS, ("prepare", "index"), _ours, _SERVING),
)
"""In the order of tables."""


def ours_in(variant: Variant) -> System:
    """Our system in an ablation."""

    def opened(cell: FinishedCell) -> Answering:
        predictor = cell.predictor_with(
            k=variant.k,
            gate=variant.gate,
            lexical=variant.lexical,
            neighbours=variant.neighbours,
        )
        return Released(predictor, size_of(cell.bundle), cell.store_bytes)

    stages = ("prepare", "index") if variant.store_items is None else ("prepare", SMALLER_STORE)
    return System(variant.system, stages, opened, _SERVING)
