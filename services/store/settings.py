"""Settings of the store service; each can be set as RETRIKT_STORE_NAME in the environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from services.platform.auth import KeySettings


class StoreSettings(KeySettings):
    """What `KeySettings` has, and:

    Attributes:
        backend: `edge` searches sealed versions in this process; `server` asks a Qdrant server.
        directory: of the sealed versions (`runs/<task>/store`); needed by `edge`.
        releases: the task's releases: what is live, and what can be activated; `edge` rebuilds from
            their knowledge files what is absent or damaged.
        snapshots: directory of the snapshots; without it none are kept.
        read_only: refuse every request that writes, whatever its key.
        private_directory: where `edge` puts its copies; the system's temporary directory by default.
        keep_open: versions that `edge` keeps open.
        task: name of the task; needed by `server`.
        qdrant_url: of the Qdrant server; needed by `server`.
        qdrant_api_key: of the Qdrant server.
        qdrant_grpc: speak gRPC in place of REST.
        qdrant_grpc_port: its port for that.
        qdrant_timeout_seconds: how long Qdrant may take for an answer, in whole seconds.
        max_batch: vectors that one request may hold.
        max_k: neighbours that one request may ask for a vector.
        max_ids: items that one request may look up.
        max_waiting: searches that may run or wait; more is answered with 429.
        request_timeout_seconds: how long a request may wait and be worked on; later it is answered
            with 503. Making and restoring snapshots has no limit, but one of them runs at a time.
        threads: that search.
    """

    model_config = SettingsConfigDict(env_prefix="RETRIKT_STORE_", extra="forbid", frozen=True)

    port: Annotated[int, Field(ge=0, le=65_535)] = 8001
    max_body_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    backend: Literal["edge", "server"] = "edge"
    directory: Path | None = None
    releases: Path | None = None
    snapshots: Path | None = None
    read_only: bool = False
    private_directory: Path | None = None
    keep_open: Annotated[int, Field(ge=1, le=64)] = 4
    task: str | None = None
    qdrant_url: str | None = None
    qdrant_api_key: SecretStr | None = None
    qdrant_grpc: bool = False
    qdrant_grpc_port: Annotated[int, Field(ge=1, le=65_535)] = 6334
    qdrant_timeout_seconds: Annotated[float, Field(ge=1, le=600)] = 5.0
    max_batch: Annotated[int, Field(ge=1)] = 256
    max_k: Annotated[int, Field(ge=1)] = 1024
    max_ids: Annotated[int, Field(ge=1)] = 4096
    max_waiting: Annotated[int, Field(ge=1)] = 256
    request_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    threads: Annotated[int, Field(ge=1, le=64)] = 4

    @model_validator(mode="after")
    def _what_the_backend_needs(self) -> "StoreSettings":
        if self.backend == "edge" and self.directory is None:
            raise ValueError("the backend edge needs a directory (RETRIKT_STORE_DIRECTORY)")
        if self.backend == "server" and (self.qdrant_url is None or self.task is None):
            raise ValueError(
                "the backend server needs a URL and a task "
                "(RETRIKT_STORE_QDRANT_URL, RETRIKT_STORE_TASK)"
            )
        return self
