"""`python -m services.student`: the prediction service, set up by RETRIKT_STUDENT_… variables."""

import sys

import structlog

from services.platform.errors import RetriktError
from services.platform.logs import configure_logs
from services.platform.settings import load_settings
from services.student.app import run
from services.student.settings import StudentSettings


def main() -> int:
    """Exit status of the process; 0 after SIGTERM."""
    configure_logs("student")
    try:
        settings = load_settings(StudentSettings)
        configure_logs("student", settings.log_level)
        run(settings)
    except RetriktError as error:
        structlog.get_logger(__name__).error("service_stopped", code=error.code, reason=str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
