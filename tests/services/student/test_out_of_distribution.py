"""A text far from the store is called so: in explanations and in the metrics, by the bundle's own threshold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_release
import torch
from fastapi.testclient import TestClient
from tiny_task import TinyTask, build_task

from services.platform.errors import CorruptArtifact
from services.student.app import create_app
from services.student.bundle import MANIFEST, load_bundle
from services.student.out_of_distribution import FARTHEST, neighbour_distance
from services.student.settings import StudentSettings

KNOWN, STRANGE = "printer paper toner jam", "zebra quantum"


def test_the_distance_is_one_minus_the_mean_cosine_of_what_was_found() -> None:
    similarities = np.array(
        [[1.0, 1.0], [0.9, 0.5], [0.4, -np.inf], [-np.inf, -np.inf]], np.float32
    )
    expected = [0.0, 0.3, 0.6, FARTHEST]
    assert neighbour_distance(similarities) == pytest.approx(expected, abs=1e-6)
    assert neighbour_distance(torch.from_numpy(similarities)).numpy() == pytest.approx(
        neighbour_distance(similarities), abs=1e-6
    )


def test_a_bundle_from_before_the_threshold_still_loads(tmp_path: Path) -> None:
    tiny_release.write_bundle(tmp_path / "bundle")
    path = tmp_path / "bundle" / MANIFEST
    written = json.loads(path.read_bytes())
    assert written.pop("distance_threshold") is None
    path.write_text(json.dumps(written))
    assert load_bundle(tmp_path / "bundle").manifest.distance_threshold is None


def test_a_threshold_that_no_distance_can_have_is_corrupt(tmp_path: Path) -> None:
    tiny_release.write_bundle(tmp_path / "bundle")
    path = tmp_path / "bundle" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"distance_threshold": 2.5}))
    with pytest.raises(CorruptArtifact, match="distance_threshold"):
        load_bundle(tmp_path / "bundle")


def test_what_is_farther_than_the_threshold_is_told_and_counted(
    built_task: TinyTask, tmp_path: Path
) -> None:
    with serving(built_task.directory) as client:
        near, far = (part["distance"] for part in explained(client))
    assert near < far
    with serving(build_task(tmp_path, distance_threshold=(near + far) / 2).directory) as client:
        found = explained(client)
        counted = client.get("/metrics").text
    assert [part["distance"] for part in found] == [near, far]
    assert [part["out_of_distribution"] for part in found] == [False, True]
    for outside in ("yes", "no"):
        assert f'retrikt_student_out_of_distribution_total{{outside="{outside}"}} 1.0' in counted
    for part in found:
        mean = np.mean([neighbour["similarity"] for neighbour in part["neighbours"]])
        assert part["distance"] == pytest.approx(1 - mean, abs=1e-6)


def test_without_a_threshold_nothing_is_claimed(built_task: TinyTask) -> None:
    with serving(built_task.directory) as client:
        found = explained(client)
        counted = client.get("/metrics").text
    assert [part["out_of_distribution"] for part in found] == [None, None]
    for outside in ("yes", "no"):
        assert f'retrikt_student_out_of_distribution_total{{outside="{outside}"}} 0.0' in counted


def test_without_the_store_nothing_is_claimed(tmp_path: Path) -> None:
    task = build_task(tmp_path, distance_threshold=0.0)
    with serving(task.directory, store_url="http://127.0.0.1:1") as client:
        found = explained(client)
    assert [(part["distance"], part["out_of_distribution"]) for part in found] == [(None, None)] * 2


def explained(client: TestClient) -> list[dict[str, Any]]:
    body = {"inputs": [[KNOWN], [STRANGE]], "explain": True}
    found: list[dict[str, Any]] = client.post("/predict", json=body).json()["predictions"]
    return found


def serving(directory: Path, **settings: Any) -> TestClient:
    return TestClient(create_app(StudentSettings(task_dir=directory, access_log=False, **settings)))
