"""`python -m services.store`: the store service, set up by RETRIKT_STORE_… variables."""

import sys

import structlog

from services.platform.errors import RetriktError
from services.platform.logs import configure_logs
from services.platform.settings import load_settings
from services.store.app import run
from services.store.settings import StoreSettings


def main() -> int:
    """Exit status of the process; 0 after SIGTERM."""
    configure_logs("store")
    try:
        settings = load_settings(StoreSettings)
        configure_logs("store", settings.log_level)
        run(settings)
    except RetriktError as error:
        structlog.get_logger(__name__).error("service_stopped", code=error.code, reason=str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
