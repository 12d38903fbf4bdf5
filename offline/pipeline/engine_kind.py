"""The engines that there are, by name; apart, so that the command line can name them without loading any."""

from enum import StrEnum


class EngineKind(StrEnum):
    """Where long work is done.

    Attributes:
        PROCESS: in the process of the run.
        RAY: by the actors of a Ray cluster.
    """

    PROCESS = "process"
    RAY = "ray"
