"""`python -m offline` is the command `retrikt`."""

from offline.cli import main

main()
