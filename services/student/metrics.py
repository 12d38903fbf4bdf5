"""What the prediction service counts beside requests."""

import numpy as np
from prometheus_client import Counter, Gauge, Histogram

from services.platform.metrics import SECONDS_BUCKETS, Metrics
from services.platform.worker import Worker
from services.student.predictor import Prediction


class StudentMetrics:
    """Metrics of the student, registered with those of its requests.

    Attributes:
        requests: requests by route and outcome, see `services.platform.metrics`.
        texts: `retrikt_student_texts_total`.
        degraded: `retrikt_student_degraded_texts_total{reason}`: answered without the store.
        stage_seconds: `retrikt_student_stage_seconds{stage}`, once a batch; `wait` is what the first
            request of a batch waited for the worker.
        batch_texts: `retrikt_student_batch_texts`.
        best_similarity: `retrikt_student_best_similarity`: cosine of the nearest neighbour.
        agreement: `retrikt_student_agreement_total{agree}`: whether the student alone and the
            store alone have the same first label.
        outside: `retrikt_student_out_of_distribution_total{outside}`: whether a text is farther from the store
            than the task's own texts are; only counted where the release knows how far they are.
        release: `retrikt_student_release_info{release, store_version}`: 1 for the one that serves.
        refused: `retrikt_student_releases_refused_total`: attempts to load a release that failed.
        refused_now: `retrikt_student_release_refused`: 1 while the live release is not served.
        waiting: `retrikt_student_waiting_texts`, read from the queue when it is asked for; beside it
            stands what may wait, `retrikt_student_waiting_texts_limit`.
        gaps: `retrikt_student_gap_texts_total{sign}`: texts that went into the log of knowledge gaps, `far`
            from the store or where student and store `differ`; a text of both signs counts in both.
        gaps_lost: `retrikt_student_gap_texts_lost`: those that could not be written.
        far_below: `retrikt_student_gap_similarity`: below it a text is far; -Inf before there is one.
        store_asked: `retrikt_student_store_asked`: 1 while the store is searched, 0 while it is given up.

    Also `retrikt_student_workers` and `retrikt_student_workers_wanted`: processes that run, and that should.

    With several workers counts, histograms, queues and limits are sums over them; `release_info` has what any of
    them serves, `release_refused` and `store_asked` tell of the worst, `gap_similarity` is the highest.
    """

    def __init__(self, max_waiting: int, *, workers: int = 1, worker: Worker | None = None) -> None:
        """Register them.

        Args:
            max_waiting: texts that the queue takes.
            workers: processes that serve beside each other, this one included.
            worker: which of several this process is.
        """
        self.requests = Metrics("student", worker)
        registry = self.requests.registry
        self.texts = Counter(
            "retrikt_student_texts", "Texts (or pairs) that were classified.", registry=registry
        )
        self.degraded = Counter(
            "retrikt_student_degraded_texts",
            "Texts that the student answered without the store, by reason.",
            ["reason"],
            registry=registry,
        )
        stage_seconds = Histogram(
            "retrikt_student_stage_seconds",
            "Seconds of each step of a batch.",
            ["stage"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.stage_seconds = {
            stage: stage_seconds.labels(stage)
            for stage in ("wait", "tokenize", "encode", "search", "mix")
        }
        self.batch_texts = Histogram(
            "retrikt_student_batch_texts",
            "Texts that were computed together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=registry,
        )
        self.best_similarity = Histogram(
            "retrikt_student_best_similarity",
            "Cosine similarity of the nearest knowledge item.",
            buckets=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 1.0),
            registry=registry,
        )
        agreement = Counter(
            "retrikt_student_agreement",
            "Texts by whether the student alone and the store alone agree on the first label.",
            ["agree"],
            registry=registry,
        )
        self._agree, self._differ = agreement.labels("yes"), agreement.labels("no")
        outside = Counter(
            "retrikt_student_out_of_distribution",
            "Texts by whether they are farther from the store than the task's own texts are.",
            ["outside"],
            registry=registry,
        )
        self._outside, self._inside = outside.labels("yes"), outside.labels("no")
        self.release = Gauge(
            "retrikt_student_release_info",
            "1 for the release that serves.",
            ["release", "store_version"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._serving: Gauge | None = None
        self.refused = Counter(
            "retrikt_student_releases_refused",
            "Attempts to load a release that failed.",
            registry=registry,
        )
        self.refused_now = Gauge(
            "retrikt_student_release_refused",
            "1 while the live release could not be loaded and another one serves, or none.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.waiting = Gauge(
            "retrikt_student_waiting_texts",
            "Texts that wait for the worker.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        limit = Gauge(
            "retrikt_student_waiting_texts_limit",
            "Texts that may wait.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        limit.set(max_waiting)
        running = Gauge(
            "retrikt_student_workers",
            "Worker processes that run.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        running.set(1)
        wanted = Gauge(
            "retrikt_student_workers_wanted",
            "Worker processes that should run.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        wanted.set(workers)
        gaps = Counter(
            "retrikt_student_gap_texts",
            "Texts for the log of knowledge gaps, by sign.",
            ["sign"],
            registry=registry,
        )
        self.gaps = {sign: gaps.labels(sign) for sign in ("far", "differ")}
        self.gaps_lost = Gauge(
            "retrikt_student_gap_texts_lost",
            "Texts that the log of knowledge gaps could not take.",
            registry=registry,
            multiprocess_mode="sum",
        )
        self.far_below = Gauge(
            "retrikt_student_gap_similarity",
            "Similarity of the nearest item below which a text goes into the log of knowledge gaps.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.store_asked = Gauge(
            "retrikt_student_store_asked",
            "1 while the store is searched, 0 while the student has given it up for now.",
            registry=registry,
            multiprocess_mode="livemin",
        )

    def observe(self, prediction: Prediction) -> None:
        """Count a batch."""
        count = len(prediction.probabilities)
        self.texts.inc(count)
        self.batch_texts.observe(count)
        for stage, seconds in prediction.seconds.items():
            self.stage_seconds[stage].observe(seconds)
        if prediction.degraded is not None:
            self.degraded.labels(prediction.degraded).inc(count)
        if prediction.store is None or prediction.similarities is None:
            return
        for similarity in prediction.similarities[:, 0].tolist():
            self.best_similarity.observe(similarity)
        same = prediction.student.argmax(axis=1) == prediction.store.argmax(axis=1)
        agreeing = int(np.count_nonzero(same))
        self._agree.inc(agreeing)
        self._differ.inc(count - agreeing)
        if prediction.out_of_distribution is not None:
            outside = int(np.count_nonzero(prediction.out_of_distribution))
            self._outside.inc(outside)
            self._inside.inc(count - outside)

    def serves(self, release: str, store_version: str) -> None:
        """Note which release serves from now on."""
        if not self.requests.shared:
            self.release.clear()
        elif self._serving is not None:
            # Nothing that is in the workers' files can be cleared; a 0 is not shown.
            self._serving.set(0)
        self._serving = self.release.labels(release, store_version)
        self._serving.set(1)
