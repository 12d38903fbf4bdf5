"""The prediction service without HTTP: request bodies in, answer bodies out, releases followed."""

import asyncio
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import structlog

from services.platform.auth import Granted, Keys
from services.platform.deadline import Deadlines
from services.platform.errors import NotReady, RetriktError
from services.platform.spans import note
from services.releases.directory import ReleaseDirectory
from services.store.client import StoreClient
from services.student.answering import Answer, Watch, answer_batch
from services.student.answers import RankedJson
from services.student.batching import MicroBatcher
from services.student.follower import ReleaseFollower
from services.student.gap_log import GapLog
from services.student.line_log import LineLog
from services.student.metrics import StudentMetrics
from services.student.predict_request import PredictRequest, read_predict_request
from services.student.predictor import Prediction, Predictor, TextInput
from services.student.settings import StudentSettings
from services.student.text_samples import TextSamples

log = structlog.get_logger(__name__)

_RESERVED = 0.2
"""Share of a request's time that a search may not use up."""

_MAKE_ONE_LIVE = "`retrikt run CONFIG` makes one and makes it live; `retrikt release activate` does the latter alone."


class PredictionService:
    """Follows the live release and answers requests with it, in batches on one thread.

    Attributes:
        keys: that a request has to be sent with.
        deadlines: within one of which a request is to be read and answered.
        max_texts: inputs that a request may hold.
        auto_truncate: cut texts that are too long where a request does not say.
    """

    def __init__(
        self, settings: StudentSettings, client: StoreClient, metrics: StudentMetrics
    ) -> None:
        """Nothing runs before `start`.

        Args:
            settings: limits, time limits, where the releases are.
            client: reaches the store; stays the caller's to close.
            metrics: counts what happens here.

        Raises:
            InvalidConfig: the settings' keys cannot be used.
        """
        self.keys = Keys.from_settings(settings)
        self.deadlines = Deadlines(settings.request_timeout_seconds)
        self.max_texts = settings.max_request_texts
        self.auto_truncate = settings.auto_truncate
        self._settings = settings
        self._client = client
        self._metrics = metrics
        self._predictor: Predictor | None = None
        self._ranked = RankedJson([])
        self._gaps = _gap_log(settings, metrics)
        self._samples = TextSamples(settings.log_text_share) if settings.log_text_share else None
        self._watch: Watch | None = self._look if self._gaps or self._samples else None
        self._batcher: MicroBatcher[PredictRequest, Answer] = MicroBatcher(
            self._process,
            max_batch=settings.max_batch_texts,
            max_waiting=settings.max_waiting_texts,
            on_wait=metrics.stage_seconds["wait"].observe,
            name="predictor",
        )
        self._follower: ReleaseFollower[Predictor] = ReleaseFollower(
            ReleaseDirectory(settings.task_dir / "releases"),
            self._load,
            self._install,
            poll_seconds=settings.poll_seconds,
        )
        requests = metrics.requests
        requests.watch(metrics.waiting, lambda: self._batcher.waiting)
        requests.watch(metrics.store_asked, self._asks_store)
        requests.watch(metrics.refused_now, lambda: self._follower.failure is not None)

    async def start(self, *, wait_seconds: float = 10.0) -> None:
        """Follow the releases; return once the live one serves, or it takes longer than that."""
        self._follower.start()
        looked = await asyncio.to_thread(self._follower.looked.wait, wait_seconds)
        if looked and self._predictor is None and self._follower.failure is None:
            log.warning(
                "no_release_is_live", directory=str(self._settings.task_dir), hint=_MAKE_ONE_LIVE
            )

    async def close(self) -> None:
        """Answer what waits and stop."""
        await asyncio.to_thread(self._follower.close)
        await asyncio.to_thread(self._batcher.close)
        if self._gaps is not None:
            await asyncio.to_thread(self._gaps.close)
        if self._predictor is not None:
            self._predictor.close()

    async def predict(self, body: bytes, granted: Granted, deadline: float) -> Answer:
        """Answer the body of a request.

        Args:
            body: of `POST /predict`.
            granted: what its sender may do.
            deadline: `time.monotonic()` by which the answer is needed.

        Raises:
            InvalidRequest, BatchTooLarge, TextTooLong: it cannot be answered as it is.
            NotReady: no release serves yet.
            Overloaded: too much waits already, or it waited too long.
        """
        request = read_predict_request(
            body,
            pair=self.serving().pair,
            max_texts=self.max_texts,
            auto_truncate=self.auto_truncate,
            show_texts="text" in granted,
        )
        return await self.answer(request, deadline)

    async def answer(self, request: PredictRequest, deadline: float) -> Answer:
        """Answer a request that was read. Raises as `predict` does."""
        answer = await self._batcher.submit(request, weight=max(1, request.size), deadline=deadline)
        note(texts=request.size, release=answer.release, degraded=answer.degraded or "")
        return answer

    @property
    def is_ready(self) -> bool:
        """Whether a release serves."""
        return self._predictor is not None

    def serving(self) -> Predictor:
        """The predictor that serves. Raises NotReady before the first one."""
        if self._predictor is None:
            failure = self._follower.failure
            raise NotReady(
                "No release serves yet."
                if failure is None
                else f"The live release {failure.release} cannot be served: {failure.reason}",
                hint=_MAKE_ONE_LIVE if failure is None else None,
            )
        return self._predictor

    def state(self) -> dict[str, object]:
        """What a reader of `/readyz` should see. Raises NotReady."""
        predictor, failure = self.serving(), self._follower.failure
        return {
            "release": predictor.release,
            "degraded": predictor.store_state,
            "refused": failure
            and {"release": failure.release, "code": failure.code, "reason": failure.reason},
        }

    def info(self) -> dict[str, object]:
        """The body of `/info`: what is served and within which limits, named as TEI names them."""
        settings, predictor = self._settings, self._predictor
        limits = {
            "max_client_batch_size": settings.max_request_texts,
            "max_batch_requests": settings.max_batch_texts,
            "max_batch_tokens": settings.token_budget,
            "max_concurrent_requests": settings.max_waiting_texts,
            "max_body_bytes": settings.max_body_bytes,
            "max_request_seconds": settings.request_timeout_seconds,
            "max_search_seconds": settings.store_timeout_seconds,
            "auto_truncate": settings.auto_truncate,
            "store": "embedded" if settings.store_url is None else "service",
            "version": version("retrikt"),
            "workers": settings.workers,
            "keys": {
                "read": self.keys.asks_for("read"),
                "text": self.keys.asks_for("text"),
            },
        }
        if predictor is None:
            return {"model_id": None, "release": None, **limits}
        bundle, manifest = predictor.bundle, predictor.manifest
        names = dict(zip(bundle.labels, bundle.label_names, strict=True))
        return {
            "model_id": manifest.task,
            "model_sha": manifest.release,
            "model_type": {
                "classifier": {
                    "id2label": {str(n): label for n, label in enumerate(predictor.labels)},
                    "label2id": {label: n for n, label in enumerate(predictor.labels)},
                }
            },
            "max_input_length": predictor.max_tokens,
            **limits,
            "task": manifest.task,
            "pair": predictor.pair,
            "release": manifest.release,
            "labels": list(predictor.labels),
            "label_names": [names.get(label, label) for label in predictor.labels],
            "store_version": manifest.store_version,
            "encoder_fingerprint": manifest.encoder_fingerprint,
            "items": manifest.items,
            "parameters": bundle.parameters,
            "metrics": manifest.metrics,
        }

    def _asks_store(self) -> bool:
        return self._predictor is not None and self._predictor.store_state is None

    def _load(self, directory: Path, replaces: bool) -> Predictor:
        try:
            return Predictor.load(
                directory,
                self._client,
                threads=self._settings.threads,
                token_budget=self._settings.token_budget,
                store_timeout=self._settings.store_timeout_seconds,
                # One that serves already is better than one that cannot look anything up.
                must_hold_version=replaces,
            )
        except Exception:
            self._metrics.refused.inc()
            raise

    def _install(self, predictor: Predictor) -> Predictor | None:
        def swap() -> Predictor | None:
            before, self._predictor = self._predictor, predictor
            self._ranked = RankedJson(predictor.labels)
            self._metrics.serves(predictor.release, predictor.manifest.store_version)
            return before

        return self._batcher.between_batches(swap)

    def _process(
        self, requests: Sequence[PredictRequest], deadline: float
    ) -> list[Answer | RetriktError]:
        # A search that hangs takes what is left of the time, but for what an answer without it takes.
        search_until = deadline - _RESERVED * self.deadlines.seconds
        return answer_batch(
            self.serving(),
            self._ranked,
            requests,
            deadline=search_until,
            metrics=self._metrics,
            watch=self._watch,
        )

    def _look(self, texts: Sequence[TextInput], prediction: Prediction) -> None:
        try:
            if self._gaps is not None:
                self._gaps.look(texts, prediction, len(self.serving().bundle.labels))
            if self._samples is not None:
                self._samples.look(texts, prediction)
        except Exception:
            # Whatever goes wrong in keeping a text, its answer is there.
            log.exception("texts_not_kept", texts=len(texts))


def _gap_log(settings: StudentSettings, metrics: StudentMetrics) -> GapLog | None:
    if settings.gap_log is None:
        return None
    lines = LineLog(
        settings.gap_log,
        max_bytes=settings.gap_log_bytes,
        files=settings.gap_log_files,
        shared=settings.workers > 1,
        on_lost=metrics.gaps_lost.inc,
    )
    return GapLog(
        lines,
        far_share=settings.gap_far_share,
        redacted=settings.gap_redacted,
        metrics=metrics,
    )
