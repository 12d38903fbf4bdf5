"""Searches straight from ASGI.

FastAPI's routing, dependencies and request objects cost as much as a small search does. This sits inside
of the middleware that all services share, answers as the documented route of `services.store.routes`
does, and leaves every other request to it.
"""

from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from services.platform.asgi import authorization_of, body_of
from services.platform.errors import RetriktError
from services.platform.http import told
from services.platform.spans import name_request
from services.store.searching import Searches

SEARCH_PATH = "/v1/versions/{version}/search"

_BEFORE, _AFTER = SEARCH_PATH.split("{version}")


class _Route:
    """What the shared middleware reads the path from."""

    path = SEARCH_PATH


class FastPathMiddleware:
    """Answers `POST /v1/versions/{version}/search`; the innermost of an application's middleware."""

    def __init__(self, app: ASGIApp, searches: Searches) -> None:
        self._app = app
        self._searches = searches

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        version = _searched(scope)
        if version is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = _Route
        name_request("POST", SEARCH_PATH)
        try:
            body = await self._searches.answer(
                version, authorization_of(scope), partial(body_of, receive)
            )
        except RetriktError as error:
            await told(error, scope)(scope, receive, send)
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _searched(scope: Scope) -> str | None:
    """The version that a request searches; None of every other request."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    path: str = scope["path"]
    if not (path.startswith(_BEFORE) and path.endswith(_AFTER)):
        return None
    version = path[len(_BEFORE) : -len(_AFTER)]
    return version if version and "/" not in version else None
