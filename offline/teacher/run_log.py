"""The log of a training run: `log.jsonl` and a TensorBoard event file, written as it goes on."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

LOG = "log.jsonl"
EVENTS = "events.out.tfevents.retrikt"

Log = Callable[[Mapping[str, float]], None]
"""Called with one row of figures."""

# Chart groups by the beginning of a figure's name, the first that fits; the rest stand under "training".
_GROUPS = (
    ("held_out_", "held out"),
    ("reward", "reward"),
    ("label_agreement", "reward"),
    ("kl", "policy"),
    ("step_kl", "policy"),
    ("entropy", "policy"),
    ("clip_fraction", "policy"),
    ("policy_loss", "policy"),
    ("value_loss", "value"),
    ("explained_variance", "value"),
    ("distinct", "samples"),
    ("self_bleu", "samples"),
    ("length", "samples"),
    ("complete", "samples"),
)


class RunLog:
    """Appends rows of figures to both files of a directory; each row is on the disk's side at once.

    The event file is TensorBoard's own format and depends on the rows alone: where TensorBoard's writer
    would put the host's name and the time, there are a fixed name and the row's step in seconds. So
    the same run writes the same bytes; the horizontal axis to choose is STEP.
    """

    def __init__(self, directory: Path, *, step: str) -> None:
        """Begin both files; `step` is the figure that counts the rows."""
        self._step = step
        self._rows = (directory / LOG).open("w", encoding="utf-8")
        self._events = RecordWriter((directory / EVENTS).open("wb"))
        self._write(Event(wall_time=0.0, file_version="brain.Event:2"))

    def __call__(self, row: Mapping[str, float]) -> None:
        self._rows.write(json.dumps(dict(row)) + "\n")
        self._rows.flush()
        values = [
            Summary.Value(tag=_tag(name), simple_value=value)
            for name, value in row.items()
            if name != self._step
        ]
        step = int(row[self._step])
        self._write(Event(wall_time=float(step), step=step, summary=Summary(value=values)))

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rows.close()
        self._events.close()

    def _write(self, event: Event) -> None:
        self._events.write(event.SerializeToString())
        self._events.flush()


def _tag(name: str) -> str:
    group = next((group for start, group in _GROUPS if name.startswith(start)), "training")
    return f"{group}/{name}"
