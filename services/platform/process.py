"""A service as a process of its own: settings from the environment, logs, exit status."""

from collections.abc import Callable
from typing import TypeVar

import structlog

from services.platform.errors import RetriktError
from services.platform.logs import configure_logs
from services.platform.settings import ServiceSettings, load_settings

S = TypeVar("S", bound=ServiceSettings)


def run_process(name: str, kind: type[S], run: Callable[[S], None]) -> int:
    """Run a service until it ends; the exit status of its process, 0 after SIGTERM.

    An error of ours is one event in the log and gives its own exit status.

    Args:
        name: of the service, in every line of its log.
        kind: of its settings, which are read from the environment.
        run: serves until SIGTERM.
    """
    configure_logs(name)
    try:
        settings = load_settings(kind)
        configure_logs(name, settings.log_level)
        run(settings)
    except RetriktError as error:
        structlog.get_logger(__name__).error("service_stopped", code=error.code, reason=str(error))
        return error.exit_code
    return 0
