"""Who may change what the store serves: holders of a write key, and nobody where it is read-only."""

from collections.abc import Awaitable, Callable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from services.platform.auth import Granted, Keys, is_local, requires
from services.platform.errors import InvalidConfig, PermissionDenied
from services.store.settings import StoreSettings


def writes(keys: Keys, settings: StoreSettings) -> Callable[..., Awaitable[None]]:
    """A dependency for the routes that write.

    Without a key, pages of other origins are refused too: a browser sends a POST without a body
    wherever a page tells it to, and the answer need not be readable to have done its work.

    Raises NotAuthenticated and PermissionDenied.
    """

    async def check(
        request: Request, _: Annotated[Granted, Depends(requires(keys, "write"))]
    ) -> None:
        if settings.read_only:
            raise PermissionDenied(
                "This store service is read-only.", hint="Use `retrikt release` beside the files."
            )
        origin = request.headers.get("origin")
        if origin is None or keys.asks_for("write") or origin in settings.cors_origins:
            return
        if not _is_own(origin, request.headers.get("host")):
            raise PermissionDenied(
                "A page of another origin may not write without a key.",
                hint="Name its origin in RETRIKT_STORE_CORS_ORIGINS.",
            )

    return check


def refuse_open_writing(keys: Keys, settings: StoreSettings) -> None:
    """Raise InvalidConfig where others than this machine could write without a key."""
    if settings.read_only or keys.has("write") or is_local(settings.host):
        return
    raise InvalidConfig(
        f"The store service would listen on {settings.host}, where everybody could write.",
        hint="Set RETRIKT_STORE_WRITE_KEYS or RETRIKT_STORE_WRITE_KEYS_FILE (make a key with "
        "`openssl rand -hex 32`), or RETRIKT_STORE_READ_ONLY=true.",
    )


def _is_own(origin: str, host: str | None) -> bool:
    """Whether a page came from this service, under a name that nobody else can give this machine."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.netloc == host and is_local(parts.hostname or "")
