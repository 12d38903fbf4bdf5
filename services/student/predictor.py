"""A release at work: texts in, mixed probabilities out. Knows nothing of HTTP."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from services.platform.errors import CorruptArtifact, IncompatibleArtifacts, InvalidInput
from services.platform.spans import note, span
from services.releases.manifest import (
    BUNDLE,
    EDITED,
    LEXICAL,
    SOFT_LABELS,
    ReleaseManifest,
    check_release,
)
from services.store.client import StoreClient, StoredItem
from services.student.added_words import mix_added
from services.student.bundle import BundleManifest, load_bundle
from services.student.corrections import corrected, moved_by
from services.student.edited import EditedAnswers, load_edited
from services.student.encoder import TOKEN_BUDGET, OnnxEncoder, Tokens
from services.student.guarded_store import GuardedStore
from services.student.label_balance import label_weights
from services.student.lexical import LexicalIndex, LexicalWeights
from services.student.lexical_words import Word, said_by_words
from services.student.mixing import blend, head_distribution, mix
from services.student.out_of_distribution import neighbour_distance
from services.student.truncation import Direction

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TextInput:
    """What is to be classified: a text, and a second one where the task is about pairs."""

    text: str
    pair: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """Answers to a batch of b texts, and what they were made of.

    Attributes:
        release: the release that answered.
        labels: the L labels, in the order of the columns.
        probabilities: float32 (b, L), rows sum to 1.
        student: float32 (b, L), the student alone, calibrated.
        store: float32 (b, L), the neighbours alone; None when the answer is degraded.
        weight: float32 (b,), the store's share of the answer; 0 when degraded.
        neighbour_ids: int64 (b, k), best first, padded with -1; None when degraded.
        similarities: float32 (b, k), cosines, padded with -inf; None when degraded.
        degraded: why the store was not asked or did not answer; None when it did.
        seconds: time taken by `tokenize`, `encode`, `search` and `mix`.
        distance: float32 (b,), `neighbour_distance`; None when degraded.
        out_of_distribution: bool (b,), whether that is beyond the bundle's threshold; None when degraded, or
            the bundle has none.
        corrections: float32 (b, H), by how much neighbours that came after training moved the probabilities of the
            student's labels; None when degraded, or where no item of the release did.
        added_by_words: float32 (b, m), how probable each of the release's last m labels, which the student does not
            know, is by the words of a text; None when degraded, or where the release has no words of theirs.
    """

    release: str
    labels: tuple[str, ...]
    probabilities: Floats
    student: Floats
    store: Floats | None
    weight: Floats
    neighbour_ids: NDArray[np.int64] | None
    similarities: Floats | None
    degraded: str | None
    seconds: dict[str, float] = field(default_factory=dict)
    distance: Floats | None = None
    out_of_distribution: NDArray[np.bool_] | None = None
    corrections: Floats | None = None
    added_by_words: Floats | None = None


class Predictor:
    """One release: its student, its soft labels and its store version.

    Answers from one thread at a time.

    Attributes:
        manifest: the release.
        bundle: its student's manifest.
        labels: of the release; the student's own come first.
        soft_labels: float16 (items, L), mapped from the file.
        label_weights: float32 (L,), what the neighbours' soft labels are multiplied by, so that labels of few items
            are not drowned; None where they are taken as they are.
    """

    def __init__(
        self,
        manifest: ReleaseManifest,
        bundle: BundleManifest,
        encoder: OnnxEncoder,
        soft_labels: NDArray[np.float16],
        store: GuardedStore,
        lexical: LexicalIndex | None = None,
        edited: EditedAnswers | None = None,
    ) -> None:
        self.manifest = manifest
        self.bundle = bundle
        self.labels = manifest.labels
        self.soft_labels = soft_labels
        self.label_weights = None
        if any(manifest.balances):
            items = soft_labels.sum(axis=0, dtype=np.float64)
            self.label_weights = label_weights(items, len(bundle.labels), manifest.balances)
        self._encoder = encoder
        self._store = store
        self._lexical = lexical
        self._edited = edited or EditedAnswers()

    @classmethod
    def load(
        cls,
        release_dir: Path,
        client: StoreClient,
        *,
        threads: int = 1,
        token_budget: int = TOKEN_BUDGET,
        store_timeout: float = 0.25,
        must_hold_version: bool = False,
    ) -> Self:
        """Open a release, check that its parts belong together, and answer one text to warm it up.

        Args:
            release_dir: the release's directory.
            client: reaches the store; stays the caller's to close.
            threads: that ONNX Runtime computes on.
            token_budget: padded tokens that one run of the student may hold.
            store_timeout: seconds that a search may take.
            must_hold_version: refuse a release whose version an answering store does not hold,
                instead of answering without the store.

        Raises:
            CorruptArtifact: a file is missing or not what the manifest says.
            IncompatibleArtifacts: the student is not the one that wrote the release's store
                version, its labels are not the release's first ones, or it wants a lexical index and the
                release has none.
            VersionNotFound: see `must_hold_version`.
        """
        manifest = check_release(release_dir)
        bundle = load_bundle(release_dir / BUNDLE)
        _check_belongs(manifest, bundle.manifest)
        soft_labels = _open_soft_labels(release_dir / SOFT_LABELS, manifest)
        lexical = open_lexical(release_dir, bundle.manifest)
        edited = open_edited(release_dir, bundle.manifest, manifest)
        encoder = OnnxEncoder.of_bundle(bundle, threads=threads, token_budget=token_budget)
        store = GuardedStore(
            client,
            manifest.store_version,
            manifest.encoder_fingerprint,
            labels=manifest.labels,
            items=manifest.items,
            timeout=store_timeout,
        )
        store.open(must_hold_version=must_hold_version)
        predictor = cls(manifest, bundle.manifest, encoder, soft_labels, store, lexical, edited)
        warm = predictor.predict([TextInput("warm up", "warm up" if predictor.pair else None)])
        if not np.isfinite(warm.probabilities).all():
            predictor.close()
            raise CorruptArtifact(f"The student of release {manifest.release} answers no numbers.")
        return predictor

    @property
    def release(self) -> str:
        return self.manifest.release

    @property
    def pair(self) -> bool:
        return self.bundle.pair

    @property
    def max_tokens(self) -> int:
        return self._encoder.max_tokens

    @property
    def store_state(self) -> str | None:
        """None while the store is asked; the reason while the student answers alone."""
        return self._store.state

    def predict(self, texts: Sequence[TextInput], *, deadline: float | None = None) -> Prediction:
        """Classify any number of texts: one search a call, texts longer than `max_tokens` are cut.

        Args:
            texts: what is to be classified.
            deadline: `time.monotonic()` by which the answer is needed; the store is not asked
                for longer than that.

        Raises:
            InvalidInput: a second text is missing, or given where the task has none.
        """
        started = time.perf_counter()
        tokens = self.tokenize(texts)
        seconds = time.perf_counter() - started
        return self.predict_tokens(tokens, deadline=deadline, tokenize_seconds=seconds)

    def tokenize(self, texts: Sequence[TextInput], direction: Direction = "right") -> list[Tokens]:
        """Token ids of each text, cut on the `direction` side. Raises InvalidInput."""
        pairs = [text.pair for text in texts if text.pair is not None] or None
        if pairs is not None and len(pairs) != len(texts):
            raise InvalidInput("Some of the texts have a second text, others have none.")
        tokens = self._encoder.tokenize([text.text for text in texts], pairs, direction)
        if self._lexical is None:
            return tokens
        words = self._lexical.words
        return [
            Tokens(item.ids, item.truncated, words(text.text, text.pair, direction))
            for item, text in zip(tokens, texts, strict=True)
        ]

    def predict_tokens(
        self,
        tokens: Sequence[Tokens],
        *,
        deadline: float | None = None,
        tokenize_seconds: float = 0.0,
    ) -> Prediction:
        """As `predict`, from what `tokenize` gave."""
        if not tokens:
            nothing = np.zeros((0, len(self.labels)), np.float32)
            return Prediction(
                self.release, self.labels, nothing, nothing, None, nothing[:, 0], None, None, None
            )
        started = time.perf_counter()
        with span("encode"):
            logits, query = self._encoder.run(tokens)
            if self._lexical is not None:
                said = self._lexical.logits([item.words for item in tokens])
                logits = blend(logits, said, self.bundle.mixing.lexical_share)
        encoded = time.perf_counter()
        parameters, threshold = self.bundle.mixing, self.bundle.distance_threshold
        with span("search"):
            hits, degraded = self._store.search(query, parameters.k, deadline=deadline)
            note(store_version=self._store.version, k=parameters.k, degraded=degraded or "")
        searched = time.perf_counter()
        seconds = {
            "tokenize": tokenize_seconds,
            "encode": encoded - started,
            "search": searched - encoded,
        }
        if hits is None:
            alone = np.zeros((len(tokens), len(self.labels)), np.float32)
            alone[:, : logits.shape[1]] = head_distribution(logits, parameters)
            weight = np.zeros(len(tokens), np.float32)
            return Prediction(
                self.release, self.labels, alone, alone, None, weight, None, None, degraded, seconds
            )
        with span("mix"):
            # Padding has the id -1: it is clipped to a row that then weighs nothing.
            neighbour_labels = np.take(self.soft_labels, hits.ids, axis=0, mode="clip")
            neighbour_labels = neighbour_labels.astype(np.float32)
            if self.label_weights is not None:
                # They sum to more than 1 then; `mix` makes a distribution of the neighbours' sum again.
                neighbour_labels *= self.label_weights
            mixed = mix(logits, hits.scores, neighbour_labels, parameters)
            moved = None
            if self._edited.corrections is not None:
                by = moved_by(hits.scores, self._edited.corrections.at(hits.ids), parameters)
                before, mixed = mixed, corrected(mixed, by)
                moved = (mixed.probabilities - before.probabilities)[:, : by.shape[1]]
            by_words = None
            if self._edited.words is not None:
                by_words = self._edited.words.probabilities([item.words for item in tokens])
                mixed = mix_added(mixed, by_words, parameters.lexical_share)
            distance = neighbour_distance(hits.scores)
        seconds["mix"] = time.perf_counter() - searched
        return Prediction(
            self.release,
            self.labels,
            mixed.probabilities,
            mixed.student,
            mixed.store,
            mixed.weight,
            hits.ids,
            hits.scores,
            None,
            seconds,
            distance,
            None if threshold is None else distance > threshold,
            moved,
            by_words,
        )

    def words(self, tokens: Tokens, label: int) -> list[Word] | None:
        """What each word of a text says for a label; None where no lexical index of the release knows it."""
        share, known = self.bundle.mixing.lexical_share, len(self.bundle.labels)
        if label >= known:
            if self._edited.words is None:
                return None
            return self._edited.words.said_by_words(tokens.words, label - known, share)
        if self._lexical is None:
            return None
        return said_by_words(self._lexical, tokens.words, label, share)

    def items(self, ids: Sequence[int]) -> dict[int, StoredItem]:
        """Texts of knowledge items, as far as the store gives them."""
        return self._store.texts(ids)

    def close(self) -> None:
        """Stop what runs in the background; the client is not closed."""
        self._store.close()


def open_lexical(release_dir: Path, bundle: BundleManifest) -> LexicalIndex | None:
    """The lexical index beside a student; None for a student that wants none.

    Raises:
        IncompatibleArtifacts: it wants one, and there is none.
        CorruptArtifact: it is not the file of an index for this student's labels.
    """
    if not bundle.mixing.lexical_share:
        return None
    path = release_dir / LEXICAL
    if not path.exists():
        raise IncompatibleArtifacts(
            f"The student in {release_dir} answers with a lexical index, and there is no {LEXICAL} beside it.",
            hint="Index the knowledge with this student and release it again.",
        )
    return LexicalIndex(LexicalWeights.load(path, len(bundle.labels)))


def open_edited(
    release_dir: Path, bundle: BundleManifest, release: ReleaseManifest
) -> EditedAnswers:
    """What edits add to the answers of a release.

    Raises:
        CorruptArtifact: see `services.student.edited.load_edited`.
    """
    return load_edited(
        release_dir / EDITED,
        known=len(bundle.labels),
        labels=len(release.labels),
        items=release.items,
        most_words=bundle.max_tokens,
    )


def _check_belongs(release: ReleaseManifest, bundle: BundleManifest) -> None:
    if bundle.encoder_fingerprint != release.encoder_fingerprint:
        raise IncompatibleArtifacts(
            f"The student of release {release.release} has the encoder "
            f"{bundle.encoder_fingerprint}, its store version {release.store_version} was written "
            f"by {release.encoder_fingerprint}.",
            hint="Index the knowledge with this student and release it again.",
        )
    if release.labels[: len(bundle.labels)] != bundle.labels:
        raise IncompatibleArtifacts(
            f"The labels of release {release.release} do not begin with those of its student.",
            hint="New labels are added after the student's own.",
        )
    if release.balances and len(release.balances) != len(release.labels) - len(bundle.labels):
        raise IncompatibleArtifacts(
            f"The release {release.release} has {len(release.balances)} balances for "
            f"{len(release.labels) - len(bundle.labels)} labels that its student does not know."
        )


def _open_soft_labels(path: Path, release: ReleaseManifest) -> NDArray[np.float16]:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CorruptArtifact(f"{path} is not a NumPy array: {error}.") from error
    expected = (release.items, len(release.labels))
    if matrix.dtype != np.float16 or matrix.shape != expected:
        raise CorruptArtifact(
            f"{path} holds {matrix.dtype} {matrix.shape}, expected float16 {expected}."
        )
    # Indexing a plain view of the mapping is several times quicker than indexing `memmap`.
    view: NDArray[np.float16] = matrix.view(np.ndarray)
    return view
