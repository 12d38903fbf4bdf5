"""`python -m services.store`: the store service, set up by RETRIKT_STORE_… variables."""

import sys

from services.platform.process import run_process
from services.store.app import run
from services.store.settings import StoreSettings

if __name__ == "__main__":
    sys.exit(run_process("store", StoreSettings, run))
