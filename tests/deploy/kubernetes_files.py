"""Reads the Kubernetes manifests: the files as they lie there, and an overlay as kustomize puts it together."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "k8s"
OVERLAYS = ("embedded", "cluster")
MISSING = "Neither kubectl nor kustomize is on the PATH: one of them is needed to put an overlay together."


def manifests(path: Path) -> list[dict[str, Any]]:
    """The documents of one file."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def rendered(overlay: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send. It is read once and not to be changed."""
    found = _render(overlay)
    if found is None:
        pytest.skip(MISSING)
    return found


def one(overlay: str, kind: str, name: str) -> dict[str, Any]:
    """The resource of that kind and name; maps that are generated are found without their hash."""
    [found] = [
        item
        for item in rendered(overlay)
        if item["kind"] == kind
        and (item["metadata"]["name"] == name or item["metadata"]["name"].startswith(f"{name}-"))
        and (kind == "ConfigMap" or item["metadata"]["name"] == name)
    ]
    return found


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    """The template of every pod, by the name of what makes it."""
    found: dict[str, dict[str, Any]] = {}
    for item in rendered(overlay):
        if item["kind"] in ("Deployment", "StatefulSet"):
            found[item["metadata"]["name"]] = item["spec"]["template"]
        if item["kind"] == "CronJob":
            found[item["metadata"]["name"]] = item["spec"]["jobTemplate"]["spec"]["template"]
    return found


def container(overlay: str, name: str) -> dict[str, Any]:
    """The one container of a pod."""
    [found] = pods(overlay)[name]["spec"]["containers"]
    return dict(found)


@cache
def _render(overlay: str) -> list[dict[str, Any]] | None:
    folder = str(FOLDER / "overlays" / overlay)
    for program, command in (("kustomize", ["build"]), ("kubectl", ["kustomize"])):
        if shutil.which(program):
            done = subprocess.run(
                [program, *command, folder],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert "deprecated" not in done.stderr, done.stderr
            return list(yaml.load_all(done.stdout, Loader=yaml.CSafeLoader))
    return None
