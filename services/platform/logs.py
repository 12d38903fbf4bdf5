"""Logs: one JSON object a line on standard error, events with fields, never a user's text."""

import fcntl
import logging
import os
import sys
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, TextIO, cast

import orjson
import structlog

from services.platform.settings import LogLevel
from services.platform.spans import ids_in_log


def configure_logs(
    service: str, level: LogLevel = "info", *, worker: int | None = None, lock: Path | None = None
) -> None:
    """Send this process's events, and those of the standard library's loggers, to standard error as JSON.

    Every line has `event`, `level`, `timestamp` (UTC, ISO 8601), `logger` and `service`; within a request that
    is traced, `trace_id` and `span_id` too.

    Args:
        service: name of the service, in every line.
        level: the least important events that are logged.
        worker: number of the process among those of the service, in every line.
        lock: file that is held for each line, where several processes write to one standard error: beyond a few
            kilobytes their lines would mix. Made where it is missing.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    lines = None if lock is None else _LockedLines(lock)

    def add_service(
        _: Any, __: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event["service"] = service
        if worker is not None:
            event["worker"] = worker
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        ids_in_log,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, _render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.BytesLoggerFactory(
            cast(BinaryIO, lines) if lines else sys.stderr.buffer
        ),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(cast(TextIO, lines) if lines else sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                lambda logger, name, event: _render(logger, name, event).decode(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.WARNING))


class _LockedLines:
    """Standard error, for one writer at a time among all the processes that hold the same lock."""

    def __init__(self, lock: Path) -> None:
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Threads of one process have the lock together.
        self._threads = Lock()

    def write(self, line: bytes | str) -> int:
        data = line.encode(errors="backslashreplace") if isinstance(line, str) else line
        with self._threads:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                sys.stderr.buffer.write(data)
                sys.stderr.buffer.flush()
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)
        return len(line)

    def flush(self) -> None:
        """Every line is written at once."""


def _render(_: Any, __: str, event: structlog.typing.EventDict) -> bytes:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)
