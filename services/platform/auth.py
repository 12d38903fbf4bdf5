"""Keys: who may read, see texts and write; read from files or the environment, sent as bearer tokens.

    permission   a key of it may also   without a key of its own, it is given to
    read         -                      everybody
    text         read                   whoever may read
    write        read                   nobody, once there is any other key; else everybody

A key may stand in several lists. A service without any key answers everybody.
"""

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, Self

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from services.platform.errors import InvalidConfig, NotAuthenticated, PermissionDenied
from services.platform.settings import ServiceSettings

Permission = Literal["read", "text", "write"]
Granted = frozenset[Permission]

PERMISSIONS: tuple[Permission, ...] = ("read", "text", "write")
LEAST_CHARACTERS = 16

_INCLUDED: dict[Permission, Granted] = {
    "read": frozenset({"read"}),
    "text": frozenset({"read", "text"}),
    "write": frozenset({"read", "write"}),
}
_KEY = re.compile(rf"[!-~]{{{LEAST_CHARACTERS},256}}")
_LOCAL = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")
_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="A key of this service.")


class KeySettings(ServiceSettings):
    """What `ServiceSettings` has, and the keys of a service:

    Attributes:
        read_keys, text_keys, write_keys: keys of each permission, separated by spaces or commas.
        read_keys_file, text_keys_file, write_keys_file: files with such keys, one a line; lines that
            start with `#` are left out. What a variable and a file hold is taken together.
    """

    read_keys: SecretStr | None = None
    text_keys: SecretStr | None = None
    write_keys: SecretStr | None = None
    read_keys_file: Path | None = None
    text_keys_file: Path | None = None
    write_keys_file: Path | None = None


class Keys:
    """The keys of a service, and what each may do.

    Only their digests are kept, and every one of them is compared on every request, each in constant
    time: how long an answer takes says nothing about how close a guess was.

    Attributes:
        any: whether there is a key at all; without one everybody may do everything.
    """

    def __init__(self, keys: Mapping[Permission, Sequence[str]]) -> None:
        """Take the keys of each permission.

        Raises:
            InvalidConfig: a key is too short or holds what a header cannot; the key is not shown.
        """
        granted: dict[bytes, Granted] = {}
        for permission, own in keys.items():
            for number, key in enumerate(own, start=1):
                if not _KEY.fullmatch(key):
                    raise InvalidConfig(
                        f"{permission} key {number} is no key: it takes {LEAST_CHARACTERS} to 256 "
                        "printable ASCII characters without spaces.",
                        hint="Make one with `openssl rand -hex 32`.",
                    )
                digest = sha256(key.encode()).digest()
                granted[digest] = granted.get(digest, frozenset()) | _INCLUDED[permission]
        self._granted = tuple(granted.items())
        self._with_keys = frozenset(permission for permission, own in keys.items() if own)
        self._open = _open_to_everybody(self._with_keys)
        self.any = bool(granted)
        self._readers_see_texts = "text" not in self._with_keys

    @classmethod
    def from_settings(cls, settings: KeySettings) -> Self:
        """The keys that a service's settings name, from variables and files.

        Raises:
            InvalidConfig: a file cannot be read or holds no key, or a key is none.
        """
        return cls(
            {
                permission: [
                    *_split(getattr(settings, f"{permission}_keys")),
                    *keys_in_file(getattr(settings, f"{permission}_keys_file")),
                ]
                for permission in PERMISSIONS
            }
        )

    def has(self, permission: Permission) -> bool:
        """Whether any key was given for a permission."""
        return permission in self._with_keys

    def asks_for(self, permission: Permission) -> bool:
        """Whether a permission takes a key."""
        return permission not in self._open

    def granted(self, authorization: str | None) -> Granted:
        """What a request may do, by its `Authorization` header; never raises."""
        return self._open | (self._of(authorization) or frozenset())

    def check(self, authorization: str | None, permission: Permission) -> Granted:
        """What a request may do, where it must have `permission`.

        Args:
            authorization: its header, `Bearer KEY`.
            permission: what is asked for.

        Raises:
            NotAuthenticated: no key, or one that is not known.
            PermissionDenied: the key is known and may not do that.
        """
        if not self.any:
            return self._open
        if permission in self._open:
            return self.granted(authorization)
        own = self._of(authorization)
        if own is None:
            raise NotAuthenticated(
                f"This takes a key with the permission {permission}.",
                hint="Send it as `Authorization: Bearer KEY`.",
            )
        granted = self._open | own
        if permission not in granted:
            raise PermissionDenied(f"This key lacks the permission {permission}.")
        return granted

    def _of(self, authorization: str | None) -> Granted | None:
        """What the key of a header grants; None without a known one."""
        if authorization is None or not self._granted:
            return None
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        found: Granted | None = None
        for known, granted in self._granted:
            if hmac.compare_digest(known, digest):
                found = granted
        if found is not None and self._readers_see_texts:
            return found | {"text"}
        return found


def requires(keys: Keys, permission: Permission) -> Callable[..., Awaitable[Granted]]:
    """A dependency for routes that take a permission; its value is all that the request may do.

        @router.get("/v1/versions", dependencies=[Depends(requires(keys, "read"))])

    Raises NotAuthenticated and PermissionDenied, as `Keys.check` does.
    """

    async def check(
        request: Request,
        _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    ) -> Granted:
        return keys.check(request.headers.get("authorization"), permission)

    return check


def is_local(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    return _LOCAL.fullmatch(host) is not None


def _open_to_everybody(with_keys: Granted) -> Granted:
    allowed: set[Permission] = set()
    if "read" not in with_keys:
        allowed.add("read")
        if "text" not in with_keys:
            allowed.add("text")
    if not with_keys:
        allowed.add("write")
    return frozenset(allowed)


def _split(variable: SecretStr | None) -> list[str]:
    return [] if variable is None else variable.get_secret_value().replace(",", " ").split()


def keys_in_file(path: Path | None) -> list[str]:
    """The keys in a file, one a line, without comments; none without a file.

    Raises:
        InvalidConfig: it cannot be read or holds no key.
    """
    if path is None:
        return []
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidConfig(f"The file of keys {path} cannot be read: {reason}.") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise InvalidConfig(
            f"The file of keys {path} holds no key.", hint="Expected one key a line."
        )
    return keys
