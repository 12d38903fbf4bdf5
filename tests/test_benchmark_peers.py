"""The servers that the benchmark compares with run the same predictor on the same libraries."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PEERS = sorted((ROOT / "benchmarks" / "peers").glob("*.txt"))
OTHERWISE = {"bentoml": {"opentelemetry-api"}, "mlserver": {"uvloop"}, "litserve": set()}
"""What a peer does not run with in the version that is shipped, or at all in ours."""


def pins(lines: list[str]) -> dict[str, str]:
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


@pytest.mark.parametrize("path", PEERS, ids=lambda path: path.stem)
def test_a_peer_s_environment_has_the_versions_that_are_shipped(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    ours = pins([*project["dependencies"], *extras["store"], *extras["student"]])
    theirs = pins(path.read_text(encoding="utf-8").splitlines())
    assert theirs.pop(path.stem)
    different = {name for name, version in theirs.items() if ours.get(name) != version}
    assert different == OTHERWISE[path.stem]


def test_all_peers_are_looked_at() -> None:
    assert {path.stem for path in PEERS} == set(OTHERWISE)
