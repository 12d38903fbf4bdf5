import pytest
from structlog.testing import capture_logs

from offline.pipeline import progress


def test_a_figure_may_be_called_as_what_an_event_tells_anyway(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "EVENT_EVERY_SECONDS", 0.0)
    with capture_logs() as events:
        display = progress.EventDisplay()
        with display.working() as begin:
            begin("count")(1, 20, {"total": 190.0, "loss": 2.0})
    told = next(event for event in events if event["event"] == "stage_progress")
    assert (told["stage"], told["done"], told["total"], told["loss"]) == ("count", 1, 20, 2.0)
