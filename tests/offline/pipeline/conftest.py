"""A hub on this machine, and an empty cache, for the real client of Hugging Face's."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hub_stand_in import HubStandIn


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    """Holds nothing yet; what is downloaded from it goes to `tmp_path / "cache"`."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with HubStandIn() as stand_in:
        # What the client reads from the environment when it is imported.
        constants = {
            "ENDPOINT": stand_in.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{stand_in.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
        }
        for name, value in constants.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        yield stand_in
