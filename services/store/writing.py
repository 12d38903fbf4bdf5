"""Who may change what the store serves: holders of a write key, and nobody where it is read-only."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends

from services.platform.auth import Granted, Keys, is_local, requires
from services.platform.errors import InvalidConfig, PermissionDenied
from services.store.settings import StoreSettings


def writes(keys: Keys, settings: StoreSettings) -> Callable[..., Awaitable[None]]:
    """A dependency for the routes that write.

    Raises NotAuthenticated and PermissionDenied.
    """

    async def check(_: Annotated[Granted, Depends(requires(keys, "write"))]) -> None:
        if settings.read_only:
            raise PermissionDenied(
                "This store service is read-only.", hint="Use `retrikt release` beside the files."
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
