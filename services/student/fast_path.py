"""`POST /predict` straight from ASGI.

FastAPI's routing and request objects take about 70 µs a request, a tenth of all that a request costs;
here is what is left of them for the one path that matters. It sits inside of the middleware that all
services share, answers as the documented route of `services.student.routes` does, and leaves every
other request to it.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from services.platform.asgi import authorization_of, body_of
from services.platform.errors import RetriktError
from services.platform.http import told
from services.platform.spans import name_request
from services.student.answering import Answer
from services.student.routes import PATH, answer_headers
from services.student.service import PredictionService


class _Route:
    """What the shared middleware reads the path from."""

    path = PATH


class FastPathMiddleware:
    """Answers `POST /predict`; the innermost of an application's middleware."""

    def __init__(self, app: ASGIApp, service: PredictionService) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        scope["route"] = _Route
        name_request("POST", PATH)
        try:
            answer = await self._answer(scope, receive)
        except RetriktError as error:
            await told(error, scope)(scope, receive, send)
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(answer.body)),
            *answer_headers(answer),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        service = self._service
        keys = service.keys
        granted = keys.check(authorization_of(scope) if keys.any else None, "read")
        with service.deadlines.start() as deadline:
            return await service.predict(await body_of(receive), granted, deadline.at)
