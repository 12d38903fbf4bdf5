"""Logs: one JSON object a line on standard error, events with fields, never a user's text."""

import logging
import sys
from typing import Any

import orjson
import structlog

from services.platform.settings import LogLevel
from services.platform.spans import ids_in_log


def configure_logs(service: str, level: LogLevel = "info") -> None:
    """Send this process's events, and those of the standard library's loggers, to standard error as JSON.

    Every line has `event`, `level`, `timestamp` (UTC, ISO 8601), `logger` and `service`; within a request that
    is traced, `trace_id` and `span_id` too.

    Args:
        service: name of the service, in every line.
        level: the least important events that are logged.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]

    def add_service(
        _: Any, __: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event["service"] = service
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
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
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


def _render(_: Any, __: str, event: structlog.typing.EventDict) -> bytes:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)
