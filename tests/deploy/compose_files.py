"""Reads compose files as Compose does: interpolation, `!reset`, `!override`, an override laid over a base."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BASE = ROOT / "docker-compose.yml"
EMBEDDED = ROOT / "deploy" / "compose.embedded.yml"

RESET = object()


class Override:
    """A value that replaces what it overrides."""

    def __init__(self, value: Any) -> None:
        self.value = value


class ComposeLoader(yaml.SafeLoader):
    """Knows Compose's two tags."""


def _reset(_: yaml.SafeLoader, __: yaml.Node) -> object:
    return RESET


def _override(loader: yaml.SafeLoader, node: yaml.Node) -> Override:
    assert isinstance(node, yaml.SequenceNode)
    return Override(loader.construct_sequence(node))


ComposeLoader.add_constructor("!reset", _reset)
ComposeLoader.add_constructor("!override", _override)


def stack(*overrides: Path) -> dict[str, Any]:
    """The base file with overrides laid over it, variables at their defaults."""
    merged = _read(BASE)
    for path in overrides:
        merged = _merged(merged, _read(path))
    return merged


def services(*overrides: Path) -> dict[str, dict[str, Any]]:
    """Its services by name."""
    found: dict[str, dict[str, Any]] = stack(*overrides)["services"]
    return found


def _read(path: Path) -> dict[str, Any]:
    text = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", path.read_text(encoding="utf-8"))
    assert "${" not in text, f"{path.name} has a variable without a default"
    found: dict[str, Any] = yaml.load(text, Loader=ComposeLoader)
    return found


def _merged(under: Any, over: Any) -> Any:
    if isinstance(over, Override):
        return over.value
    if isinstance(under, dict) and isinstance(over, dict):
        keys = [*under, *(key for key in over if key not in under)]
        return {
            key: _merged(under.get(key), over[key]) if key in over else under[key]
            for key in keys
            if over.get(key) is not RESET
        }
    if isinstance(under, list) and isinstance(over, list):
        return [*under, *over]
    return over
