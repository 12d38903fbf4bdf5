"""`python -m services.student`: the prediction service, set up by RETRIKT_STUDENT_… variables."""

import sys

from services.platform.process import run_process
from services.student.app import run
from services.student.settings import StudentSettings

if __name__ == "__main__":
    sys.exit(run_process("student", StudentSettings, run))
