"""Settings that both services share; read from the environment, checked by pydantic."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.platform.errors import InvalidConfig

LogLevel = Literal["debug", "info", "warning", "error"]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[A-Za-z0-9.\-\[\]:]+)$")]


def _split(value: object) -> object:
    return value.replace(",", " ").split() if isinstance(value, str) else value


class ServiceSettings(BaseSettings):
    """Base of a service's settings. A service adds its `env_prefix` (RETRIKT_STORE_, RETRIKT_STUDENT_).

    Attributes:
        host: address to listen on; this machine alone unless told otherwise.
        port: port to listen on; 0 takes a free one.
        log_level: the least important events that are logged.
        access_log: log one event for each request.
        max_body_bytes: the largest request body that is read.
        max_body_seconds: how long a body may take to arrive that no other time limit covers.
        cors_origins: origins (`https://example.org`), separated by commas, whose pages may call the
            service from a browser; `*` for all; none by default.
        drain_seconds: how long running requests may take to finish after SIGTERM.
    """

    # A variable that is there and empty is what compose makes of one that is not set.
    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_ignore_empty=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    log_level: LogLevel = "info"
    access_log: bool = True
    max_body_bytes: Annotated[int, Field(ge=1024)] = 2 * 1024 * 1024
    max_body_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    cors_origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split)] = ()
    drain_seconds: Annotated[float, Field(ge=0)] = 10.0


S = TypeVar("S", bound=ServiceSettings)


def load_settings(kind: type[S], **given: Any) -> S:
    """A service's settings from the environment; what is given (and not None) goes first.

    Raises:
        InvalidConfig: a value is wrong; the message names the environment variable.
    """
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = "_".join(str(part) for part in fault["loc"])
        variable = f"{kind.model_config.get('env_prefix', '')}{name}".upper()
        raise InvalidConfig(
            f"The setting {name or 'as a whole'} ({variable}) is wrong: {fault['msg']}."
        ) from error
