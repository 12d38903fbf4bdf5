"""`POST /predict`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from services.platform.auth import Granted, requires
from services.student.answering import Answer
from services.student.schemas import ErrorBody, ExplainedAnswer, PredictBody, Score, body_schema
from services.student.service import PredictionService

PATH = "/predict"
RELEASE_HEADER = "x-retrikt-release"
DEGRADED_HEADER = "x-retrikt-degraded"

DESCRIPTION = """The body is Text Embeddings Inference's: a text in `inputs`, or a pair of texts, or a \
batch of either, each input in a list of its own. The answer to one input lists all labels, best \
first; the answer to a batch is a list of such lists. With the inference API's `parameters` the answer \
is a list of lists for one input too. `x-retrikt-release` names the release that \
answered; `x-retrikt-degraded` is there when the student answered without the store, and says why."""

ERRORS = {
    401: "A key is needed, or the one that was sent is unknown",
    403: "The key may not do that",
    413: "A text has too many tokens, the request too many texts, or its body too many bytes",
    422: "The request is not JSON, has an unknown field, or an input that cannot be classified",
    429: "Too much waits already; try again after `retry-after` seconds",
    503: "No release serves yet, the service is stopping, or the request took too long",
}


def predict_router(service: PredictionService) -> APIRouter:
    """The route, documented; `services.student.fast_path` answers it in practice."""
    router = APIRouter(tags=["predict"])
    Readers = Annotated[Granted, Depends(requires(service.keys, "read"))]  # noqa: N806

    @router.post(
        PATH,
        summary="Classify texts",
        description=DESCRIPTION,
        response_model=list[Score] | list[list[Score] | ErrorBody] | ExplainedAnswer,
        responses={
            status: {"description": text, "model": ErrorBody} for status, text in ERRORS.items()
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": body_schema(PredictBody),
                        "example": {"inputs": "I forgot my password"},
                    }
                },
            }
        },
    )
    async def predict(request: Request, granted: Readers) -> Response:
        with service.deadlines.start() as deadline:
            answer = await service.predict(await request.body(), granted, deadline.at)
        headers = {name.decode(): value.decode() for name, value in answer_headers(answer)}
        return Response(answer.body, media_type="application/json", headers=headers)

    # Clients that are given a server's address alone send their requests there, as TEI takes them.
    router.post("/", include_in_schema=False)(predict)

    @router.get("/health", include_in_schema=False)
    async def health() -> Response:
        """TEI's check: 200 and nothing else."""
        service.serving()
        return Response()

    return router


def answer_headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    """The headers that say which release answered and whether the store was of help."""
    headers = [(RELEASE_HEADER.encode(), answer.release.encode())]
    if answer.degraded is not None:
        headers.append((DEGRADED_HEADER.encode(), answer.degraded.encode()))
    return headers
