"""`POST /predict`."""

from fastapi import APIRouter, Request, Response

from services.student.schemas import ErrorBody, ExplainedAnswer, PredictBody, Score
from services.student.service import Answer, PredictionService

PATH = "/predict"
RELEASE_HEADER = "x-retrikt-release"
DEGRADED_HEADER = "x-retrikt-degraded"

DESCRIPTION = """The body is Text Embeddings Inference's: a text in `inputs`, or a pair of texts, or a \
batch of either, each input in a list of its own. The answer to one input lists all labels, best \
first; the answer to a batch is a list of such lists. `x-retrikt-release` names the release that \
answered; `x-retrikt-degraded` is there when the student answered without the store, and says why."""

ERRORS = {
    413: "A text has too many tokens, the request too many texts, or its body too many bytes",
    422: "The request is not JSON, has an unknown field, or an input that cannot be classified",
    429: "Too much waits already; try again after `retry-after` seconds",
    503: "No release serves yet, or the service is stopping",
}


def predict_router(service: PredictionService) -> APIRouter:
    """The route, documented; `services.student.fast_path` answers it in practice."""
    router = APIRouter(tags=["predict"])

    @router.post(
        PATH,
        summary="Classify texts",
        description=DESCRIPTION,
        response_model=list[Score] | list[list[Score]] | ExplainedAnswer,
        responses={
            status: {"description": text, "model": ErrorBody} for status, text in ERRORS.items()
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": PredictBody.model_json_schema(),
                        "example": {"inputs": "I forgot my password"},
                    }
                },
            }
        },
    )
    async def predict(request: Request) -> Response:
        answer = await service.predict(await request.body())
        headers = {name.decode(): value.decode() for name, value in answer_headers(answer)}
        return Response(answer.body, media_type="application/json", headers=headers)

    return router


def answer_headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    """The headers that say which release answered and whether the store was of help."""
    headers = [(RELEASE_HEADER.encode(), answer.release.encode())]
    if answer.degraded is not None:
        headers.append((DEGRADED_HEADER.encode(), answer.degraded.encode()))
    return headers
