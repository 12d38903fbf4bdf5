"""Settings of the prediction service; each can be set as RETRIKT_STUDENT_NAME in the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.platform.auth import KeySettings, keys_in_file
from services.platform.errors import InvalidConfig


class StudentSettings(KeySettings):
    """What `KeySettings` has, and:

    Attributes:
        task_dir: the task's directory; its `releases` are followed.
        store_url: the store service; None searches in this process.
        store_key: sent to it; a key of its permission `text` (`read` alone does without the
            neighbours' texts in explanations).
        store_key_file: file that holds it, in place of `store_key`; read at the start.
        store_timeout_seconds: how long one search may take before the student answers alone.
        request_timeout_seconds: a request may take that long in all: to be read, to wait and to be
            computed; a search gets what is left of it.
        poll_seconds: how often the live pointer is looked at.
        workers: processes that serve on the port, each with its own copy of the store and its own
            follower of the releases; every limit here is one worker's.
        worker_hang_seconds: that the event loop of one of several workers may stand still, before it is
            killed and replaced.
        threads: that ONNX Runtime computes on.
        token_budget: padded tokens that one run of the student may hold.
        max_batch_texts: texts that are computed together.
        max_request_texts: texts that one request may hold.
        max_waiting_texts: texts that may wait for the worker; more is answered with 429, and so is
            what could not be answered within `request_timeout_seconds` at the present pace.
        auto_truncate: cut texts that are too long where a request does not say; otherwise 413.
        gap_log: file in which texts are kept that the store knows little about, as JSON lines; without
            it none are kept. For one service, its workers included; see `services.student.gap_log`.
        gap_log_bytes, gap_log_files: size of one file, and how many there are in all.
        gap_far_share: share of the texts that count as far from the store, by their nearest item.
        gap_redacted: take e-mail addresses, links, numbers and tokens out of what is kept.
        log_text_share: share of the texts that are logged, redacted; 0 logs none.
    """

    model_config = SettingsConfigDict(env_prefix="RETRIKT_STUDENT_", extra="forbid", frozen=True)

    task_dir: Path
    store_url: str | None = None
    store_key: SecretStr | None = None
    store_key_file: Path | None = None
    store_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 0.25
    request_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    poll_seconds: Annotated[float, Field(gt=0, le=60)] = 0.25
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    worker_hang_seconds: Annotated[float, Field(ge=1, le=86_400)] = 30.0
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    token_budget: Annotated[int, Field(ge=256)] = 8192
    max_batch_texts: Annotated[int, Field(ge=1)] = 64
    max_request_texts: Annotated[int, Field(ge=1)] = 256
    max_waiting_texts: Annotated[int, Field(ge=1)] = 1024
    auto_truncate: bool = False
    gap_log: Path | None = None
    gap_log_bytes: Annotated[int, Field(ge=64 * 1024)] = 16 * 1024 * 1024
    gap_log_files: Annotated[int, Field(ge=1, le=100)] = 4
    gap_far_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    gap_redacted: bool = True
    log_text_share: Annotated[float, Field(ge=0, le=1)] = 0.0

    def key_of_store(self) -> str | None:
        """What is sent to the store, from the variable or the file; None without a key.

        Raises:
            InvalidConfig: both are given, or the file cannot be read or does not hold one key.
        """
        given = [self.store_key.get_secret_value()] if self.store_key else []
        keys = [*given, *keys_in_file(self.store_key_file)]
        if len(keys) > 1:
            raise InvalidConfig(
                "The student is given more than one key of the store.",
                hint="Set RETRIKT_STUDENT_STORE_KEY, or RETRIKT_STUDENT_STORE_KEY_FILE to a file "
                "with one key.",
            )
        return keys[0] if keys else None
