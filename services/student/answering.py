"""Answering a batch of requests: one run of the student and one search, whatever the requests hold."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from services.platform.errors import RetriktError, TextTooLong
from services.platform.spans import note, span
from services.student.answers import RankedJson, batch_body, explained, neighbour_ids
from services.student.encoder import CHARACTERS_A_TOKEN, Tokens
from services.student.metrics import StudentMetrics
from services.student.predict_request import PredictRequest
from services.student.predictor import Floats, Prediction, Predictor, TextInput

Watch = Callable[[Sequence[TextInput], Prediction], None]
"""Is shown the texts of a batch and what they were answered with."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with.

    Attributes:
        body: JSON; empty where the request asked for arrays.
        release: that answered.
        degraded: why the store was of no help; None when it was.
        labels: of the release.
        probabilities: (b, L), where the request asked for arrays.
    """

    body: bytes
    release: str
    degraded: str | None
    labels: tuple[str, ...] = ()
    probabilities: Floats | None = None


@dataclass(slots=True)
class _Job:
    """A request of a batch: texts and tokens of what can be classified, the errors of what can not."""

    request: PredictRequest
    texts: Sequence[TextInput]
    tokens: Sequence[Tokens]
    faults: Mapping[int, RetriktError]


def answer_batch(
    predictor: Predictor,
    ranked: RankedJson,
    requests: Sequence[PredictRequest],
    *,
    deadline: float,
    metrics: StudentMetrics,
    watch: Watch | None = None,
) -> list[Answer | RetriktError]:
    """One answer or error for each request.

    Args:
        predictor: of the release that serves.
        ranked: writes its labels.
        requests: of the batch.
        deadline: `time.monotonic()` until which the store may search.
        metrics: counts the batch.
        watch: is shown the batch.
    """
    started = time.perf_counter()
    with span("tokenize"):
        tokenized = _tokenize(predictor, requests)
    jobs = [
        _job(request, tokens, predictor.max_tokens)
        for request, tokens in zip(requests, tokenized, strict=True)
    ]
    tokens = [item for job in jobs if isinstance(job, _Job) for item in job.tokens]
    prediction = predictor.predict_tokens(
        tokens, deadline=deadline, tokenize_seconds=time.perf_counter() - started
    )
    note(texts=len(tokens), release=prediction.release, degraded=prediction.degraded or "")
    if tokens:
        metrics.observe(prediction)
        if watch is not None:
            texts = [text for job in jobs if isinstance(job, _Job) for text in job.texts]
            watch(texts, prediction)
    ordinary = any(isinstance(job, _Job) and _is_ordinary(job.request) for job in jobs)
    rows = ranked.rows(prediction.probabilities) if ordinary else []
    answers: list[Answer | RetriktError] = []
    first = 0
    for job in jobs:
        if isinstance(job, RetriktError):
            answers.append(job)
            continue
        own = range(first, first + len(job.tokens))
        first = own.stop
        if job.request.tensors:
            answers.append(_arrays(prediction, own))
            continue
        scores = (
            rows[own.start : own.stop]
            if _is_ordinary(job.request)
            else ranked.rows(
                prediction.probabilities[own.start : own.stop],
                raw=job.request.raw_scores,
                top_k=job.request.top_k,
            )
        )
        body = _body(predictor, prediction, job, own, scores)
        answers.append(Answer(body, prediction.release, prediction.degraded))
    return answers


def _tokenize(predictor: Predictor, requests: Sequence[PredictRequest]) -> list[list[Tokens]]:
    """Tokens of each request's texts; texts that are cut on the same side in one call."""
    found: list[list[Tokens]] = [[] for _ in requests]
    for direction in {request.direction for request in requests if request.texts}:
        chosen = [n for n, request in enumerate(requests) if request.direction == direction]
        texts = [text for n in chosen for text in requests[n].texts]
        tokens = iter(predictor.tokenize(texts, direction))
        for n in chosen:
            found[n] = [next(tokens) for _ in requests[n].texts]
    return found


def _job(request: PredictRequest, tokens: list[Tokens], limit: int) -> _Job | TextTooLong:
    if request.truncate or not any(item.truncated for item in tokens):
        return _Job(request, request.texts, tokens, request.faults)
    faults: dict[int, RetriktError] = dict(request.faults)
    positions = [n for n in range(request.size) if n not in request.faults]
    for position, item in zip(positions, tokens, strict=True):
        if item.truncated:
            where = "inputs" if request.single else f"inputs[{position}]"
            error = TextTooLong(
                f"{where} has more than {limit} tokens, or {limit * CHARACTERS_A_TOKEN} characters.",
                hint='Send "truncate": true to have it cut.',
            )
            if request.single or not request.partial:
                return error
            faults[position] = error
    kept = [n for n, item in enumerate(tokens) if not item.truncated]
    return _Job(request, [request.texts[n] for n in kept], [tokens[n] for n in kept], faults)


def _is_ordinary(request: PredictRequest) -> bool:
    """Whether it wants what is written once for a whole batch."""
    return request.plain and not request.tensors


def _arrays(prediction: Prediction, rows: range) -> Answer:
    return Answer(
        b"",
        prediction.release,
        prediction.degraded,
        prediction.labels,
        prediction.probabilities[rows.start : rows.stop],
    )


def _body(
    predictor: Predictor, prediction: Prediction, job: _Job, rows: range, scores: list[bytes]
) -> bytes:
    request = job.request
    if request.explain:
        return explained(
            prediction,
            rows,
            scores,
            predictor.soft_labels,
            predictor.items(neighbour_ids(prediction, rows)),
            [
                predictor.words(tokens, int(prediction.probabilities[row].argmax()))
                for row, tokens in zip(rows, job.tokens, strict=True)
            ],
            predictor.bundle.mixing,
            predictor.label_weights,
            show_texts=request.show_texts,
            faults=job.faults,
        )
    if request.single and not request.nested:
        return scores[0]
    return batch_body(scores, job.faults)
