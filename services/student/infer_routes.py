"""The open inference protocol v2 over REST, on the predictor that `/predict` uses.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md

The model is the task, its version the release that serves. Errors are the protocol's, `{"error": …}`,
with 400 for a request that cannot be answered as it is. Health that is not is told with 503, which
orchestrators and KServe expect, where the protocol leaves it at any status but 200.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from services.platform.auth import requires
from services.platform.errors import ModelNotFound, NotReady, RetriktError
from services.platform.http import JsonResponse, inference_error_response
from services.platform.metrics import OUTCOME
from services.student.infer_request import (
    LABEL,
    SCORE,
    TEXT,
    TEXT_PAIR,
    read_infer_request,
    write_infer_answer,
)
from services.student.infer_schemas import (
    InferAnswer,
    InferBody,
    Live,
    ModelMetadata,
    ModelReady,
    ProtocolError,
    Ready,
    ServerMetadata,
)
from services.student.predictor import Predictor
from services.student.routes import answer_headers
from services.student.schemas import body_schema
from services.student.service import PredictionService
from services.student.tensors import BYTES, FP32

log = structlog.get_logger(__name__)

HEADER_LENGTH = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data"]

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "model": ProtocolError}
    for status, text in {
        400: "The request cannot be answered as it is",
        401: "A key is needed, or the one that was sent is unknown",
        403: "The key may not do that",
        404: "There is no such model or version",
        413: "A text has too many tokens, the request too many texts, or its body too many bytes",
        429: "Too much waits already; try again after `retry-after` seconds",
        503: "No release serves yet, the service is stopping, or the request took too long",
    }.items()
}
METADATA_ERRORS: dict[int | str, dict[str, Any]] = {status: ERRORS[status] for status in (404, 503)}
NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "No release serves yet"}}


class _ProtocolRoute(APIRoute):
    """Answers errors as the protocol has them."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except RetriktError as error:
                request.scope[OUTCOME] = error.code
                if error.status >= 500:
                    log.warning("request_failed", code=error.code, reason=str(error))
                return inference_error_response(error)

        return handle


def infer_router(service: PredictionService) -> APIRouter:
    """The routes under `/v2`."""
    router = APIRouter(prefix="/v2", tags=["open inference protocol"], route_class=_ProtocolRoute)

    @router.get("", summary="Server metadata", response_model=ServerMetadata)
    async def server() -> Response:
        return JsonResponse(
            {"name": "retrikt", "version": version_of("retrikt"), "extensions": EXTENSIONS}
        )

    @router.get("/health/live", summary="The server runs", response_model=Live)
    async def live() -> Response:
        return JsonResponse({"live": True})

    @router.get(
        "/health/ready",
        summary="The server can answer",
        response_model=Ready,
        responses=NOT_READY,
    )
    async def ready() -> Response:
        return _health({}, service.is_ready)

    _add_model_routes(router, service, "/models/{model}", _live_version)
    _add_model_routes(router, service, "/models/{model}/versions/{version}", _named_version)
    return router


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a path names; without a version it is the one that serves."""

    model: str
    version: str | None


async def _live_version(model: str) -> _Wanted:
    return _Wanted(model, None)


async def _named_version(model: str, version: str) -> _Wanted:
    return _Wanted(model, version)


def _add_model_routes(
    router: APIRouter,
    service: PredictionService,
    path: str,
    wanted_by: Callable[..., Awaitable[_Wanted]],
) -> None:
    """Metadata, readiness and inference of a model, below one of the two paths that name it."""
    Named = Annotated[_Wanted, Depends(wanted_by)]  # noqa: N806

    @router.get(
        path, summary="Model metadata", response_model=ModelMetadata, responses=METADATA_ERRORS
    )
    async def metadata(wanted: Named) -> Response:
        predictor = _serving(service, wanted)
        inputs = [TEXT, TEXT_PAIR] if predictor.pair else [TEXT]
        return JsonResponse(
            {
                "name": wanted.model,
                "versions": [predictor.release],
                "platform": "retrikt",
                "inputs": [{"name": name, "datatype": BYTES, "shape": [-1]} for name in inputs],
                "outputs": [
                    {"name": LABEL, "datatype": BYTES, "shape": [-1, -1]},
                    {"name": SCORE, "datatype": FP32, "shape": [-1, -1]},
                ],
            }
        )

    @router.get(
        f"{path}/ready",
        summary="The model can answer",
        response_model=ModelReady,
        responses=METADATA_ERRORS,
    )
    async def ready(wanted: Named) -> Response:
        try:
            _serving(service, wanted)
        except NotReady:
            return _health({"name": wanted.model}, False)
        return _health({"name": wanted.model}, True)

    @router.post(
        f"{path}/infer",
        summary="Classify texts",
        response_model=InferAnswer,
        responses=ERRORS,
        dependencies=[Depends(requires(service.keys, "read"))],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": body_schema(InferBody)}},
            }
        },
    )
    async def infer(request: Request, wanted: Named) -> Response:
        with service.deadlines.start() as deadline:
            body = await request.body()
            asked = read_infer_request(
                body,
                request.headers.get(HEADER_LENGTH),
                pair=_serving(service, wanted).pair,
                max_texts=service.max_texts,
                auto_truncate=service.auto_truncate,
            )
            answer = await service.answer(asked.predict, deadline.at)
        if wanted.version not in (None, answer.release):
            # Another release came between: what was asked for does not serve any more.
            raise _no_such_version(wanted)
        content, header_length = write_infer_answer(wanted.model, asked, answer)
        headers = {name.decode(): value.decode() for name, value in answer_headers(answer)}
        if header_length is None:
            return Response(content, media_type="application/json", headers=headers)
        headers[HEADER_LENGTH] = str(header_length)
        return Response(content, media_type="application/octet-stream", headers=headers)


def _serving(service: PredictionService, wanted: _Wanted) -> Predictor:
    """The predictor, if it is that model's and version's. Raises NotReady and ModelNotFound."""
    predictor = service.serving()
    if wanted.model != predictor.manifest.task:
        raise ModelNotFound(
            f"There is no model {_shown(wanted.model)}.",
            hint=f"This server has the model {predictor.manifest.task}.",
        )
    if wanted.version not in (None, predictor.release):
        raise _no_such_version(wanted)
    return predictor


def _no_such_version(wanted: _Wanted) -> ModelNotFound:
    return ModelNotFound(
        f"The model {wanted.model} is not served in the version {_shown(wanted.version or '')}.",
        hint=f"GET /v2/models/{wanted.model} names the version that serves.",
    )


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:60] + "…")


def _health(names: dict[str, str], ready: bool) -> Response:
    return JsonResponse({**names, "ready": ready}, status_code=200 if ready else 503)
