"""Reading a request straight from ASGI, for the paths that are too busy for FastAPI's request objects."""

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope


def authorization_of(scope: Scope) -> str | None:
    """The header `Authorization`, if there is one."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            text: str = value.decode("latin-1")
            return text
    return None


async def body_of(receive: Receive) -> bytes:
    """The whole body. Raises ClientDisconnect when the client has gone."""
    message = await receive()
    if message["type"] != "http.request":
        raise ClientDisconnect
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    chunks = [body]
    while message.get("more_body", False):
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
    return b"".join(chunks)
