"""Errors as HTTP answers, in one place; request ids; the limit on a request's body.

An error's body is Text Embeddings Inference's, `{"error", "error_type"}`, with a stable `code` added.
"""

import random
import re
import time
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.platform.browsers import with_security_headers
from services.platform.deadline import Deadlines
from services.platform.errors import (
    BodyTooLarge,
    InvalidRequest,
    NotAuthenticated,
    Overloaded,
    RetriktError,
    TimedOut,
)
from services.platform.metrics import GONE, OUTCOME, route_of
from services.platform.spans import note

log = structlog.get_logger(__name__)

REQUEST_ID_HEADER = "x-request-id"
_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class JsonResponse(JSONResponse):
    """JSON by orjson, NumPy arrays included. The OpenAPI document has the models of JSON answers alone."""

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def error_response(error: RetriktError) -> JsonResponse:
    """The answer that an error gives a client."""
    note(code=error.code)
    return JsonResponse(error_body(error), status_code=error.status, headers=_headers(error))


def told(error: RetriktError, scope: Scope) -> JsonResponse:
    """The answer that an error gives a client, counted and, where it is the service's own, logged."""
    scope[OUTCOME] = error.code
    if error.status >= 500:
        log.warning("request_failed", code=error.code, reason=str(error))
    return error_response(error)


def inference_error_response(error: RetriktError) -> JsonResponse:
    """The same as the open inference protocol v2 has it: `{"error"}`, 400 for a faulty request."""
    note(code=error.code)
    status = 400 if error.status == 422 else error.status
    return JsonResponse({"error": str(error)}, status_code=status, headers=_headers(error))


def error_body(error: RetriktError) -> dict[str, str]:
    """What an answer says of an error."""
    return {"error": str(error), "error_type": error.error_type, "code": error.code}


def install_error_handlers(app: FastAPI) -> None:
    """Answer every `RetriktError`, request that does not fit its schema, and unknown path alike."""

    def on_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RetriktError)
        return told(error, request.scope)

    def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return on_error(request, invalid_request(error))

    def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "no_such_path", 405: "method_not_allowed"}.get(
            error.status_code, f"status_{error.status_code}"
        )
        request.scope[OUTCOME] = code
        message = f"{request.method} {request.url.path}: {error.detail}."
        headers = dict(error.headers) if error.headers else None
        return _answer(error.status_code, message, "Validation", code, headers)

    app.add_exception_handler(RetriktError, on_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)


def invalid_request(error: RequestValidationError) -> InvalidRequest:
    """The first fault that pydantic found, with the path to the field; never the value itself."""
    fault = error.errors()[0]
    if fault["type"] == "json_invalid":
        reason = fault.get("ctx", {}).get("error", fault["msg"])
        return InvalidRequest(f"The request's body is not JSON: {reason}.")
    where = ".".join(str(part) for part in fault["loc"] if part != "body")
    message = fault["msg"].rstrip(".")
    return InvalidRequest(f"{where}: {message}." if where else f"The request's body: {message}.")


class RequestIdMiddleware:
    """Gives every request an id, in its logs and its answer; logs it; turns a bug into an answer.

    A client's own `x-request-id` is kept when it is short and plain. Where every answer's headers are
    touched anyway, those of `services.platform.browsers` are added as well.
    """

    def __init__(self, app: ASGIApp, *, access_log: bool = True) -> None:
        self._app = app
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given_id(scope) or _new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        header = (REQUEST_ID_HEADER.encode(), request_id.encode())
        status: int | None = None

        async def stamp(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*with_security_headers(message.get("headers", ())), header]
            await send(message)

        started = time.perf_counter()
        token = structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive, stamp)
        except ClientDisconnect:
            # Nobody is left to be answered, and nothing went wrong here.
            scope[OUTCOME] = GONE
        except Exception as error:
            # A bug of ours: the reader of the log gets the trace, the client a code and the id.
            log.exception("request_crashed", route=route_of(scope))
            scope[OUTCOME] = RetriktError.code
            if status is not None:
                raise
            message = f"{type(error).__name__} in the service; its log has the trace."
            response = error_response(
                RetriktError(message, hint=f"Name the request id {request_id}.")
            )
            await response(scope, receive, stamp)
        finally:
            if self._access_log:
                log.info(
                    "request",
                    method=scope["method"],
                    route=route_of(scope),
                    status=status,
                    milliseconds=round((time.perf_counter() - started) * 1000, 3),
                )
            structlog.contextvars.reset_contextvars(**token)


class BodyLimitMiddleware:
    """Refuses a body that is too large: by its announced length, or as it comes in where none is announced.

    The latter is read here, and has to arrive in time.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._deadlines = Deadlines(seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        # Chunks go before a length (RFC 9112, 6.3): a server that lets both pass heeds them alone.
        if b"transfer-encoding" in headers:
            try:
                with self._deadlines.start():
                    body = await self._read(receive)
            except TimedOut as error:
                scope[OUTCOME] = error.code
                await error_response(error)(scope, receive, send)
                return
            if body is None:
                await self._refuse(scope, receive, send)
                return
            receive = _replay(body, receive)
        elif b"content-length" in headers:
            announced = headers[b"content-length"]
            if not announced.isdigit() or int(announced) > self._max_bytes:
                await self._refuse(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _read(self, receive: Receive) -> bytes | None:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientDisconnect
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._max_bytes:
                return None
            if not message.get("more_body", False):
                return b"".join(chunks)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = BodyTooLarge(
            f"The request's body has more than {self._max_bytes} bytes.",
            hint="Send fewer or shorter inputs a request.",
        )
        scope[OUTCOME] = error.code
        await error_response(error)(scope, receive, send)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _new_id() -> str:
    """128 random bits. An id is no secret: those of the operating system would cost six times as much."""
    return f"{random.getrandbits(128):032x}"


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER.encode():
            text: str = value.decode("latin-1")
            return text if _ACCEPTABLE_ID.fullmatch(text) else None
    return None


def _headers(error: RetriktError) -> dict[str, str] | None:
    match error:
        case Overloaded():
            return {"retry-after": str(error.retry_after)}
        case NotAuthenticated():
            return {"www-authenticate": "Bearer"}
        case _:
            return None


def _answer(
    status: int, message: str, error_type: str, code: str, headers: dict[str, str] | None
) -> JsonResponse:
    body = {"error": message, "error_type": error_type, "code": code}
    return JsonResponse(body, status_code=status, headers=headers)
