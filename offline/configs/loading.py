"""Reading a configuration file: YAML, overrides from the command line, and errors that name the line."""

import dataclasses
import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from services.platform.errors import InvalidConfig

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[int | str, ...]
_NO_SECTION = ("model_type", "model_attributes_type", "dataclass_type")


def load_config(model: type[Model], path: Path, overrides: Sequence[str] = ()) -> Model:
    """The checked configuration.

    Args:
        model: what the file must be.
        path: a YAML file.
        overrides: `section.key=value`, the value in YAML; they win over the file.

    Raises:
        InvalidConfig: the file is missing or not YAML, or values are unknown or wrong; the message has a line for
            each: where it was given, what was expected, and the nearest valid key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidConfig(
            f"The configuration {path} cannot be read: {error.strerror}."
        ) from error
    document = _parse(text, str(path))
    if not isinstance(document, CommentedMap):
        raise InvalidConfig(
            f"{path} holds no sections.", hint="Expected a mapping such as `task: …`."
        )
    for override in overrides:
        _override(document, override)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        found = [
            _describe(model, document, Origin(path, overrides), item) for item in error.errors()
        ]
        raise InvalidConfig("\n".join(found)) from error


@dataclass(frozen=True, slots=True)
class Origin:
    """What a checked configuration was read from.

    Attributes:
        path: the file.
        overrides: that won over it.
    """

    path: Path
    overrides: Sequence[str] = ()

    def place(self, location: Location) -> str | None:
        """Where it says something: `tickets.yaml:9`, or the override; None where neither does."""
        if override := _overriding(self.overrides, location):
            return override
        try:
            document = _parse(self.path.read_text(encoding="utf-8"), str(self.path))
        except (OSError, InvalidConfig):
            return None  # Somebody has changed it since.
        node = document
        for key in location:
            listed = isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node)
            if not listed and not (isinstance(node, CommentedMap) and key in node):
                return None
            node = node[key]
        line = _line(document, location)
        return f"{self.path}:{line}" if line else str(self.path)


def unknown_key(location: Location, valid: Sequence[str]) -> str:
    """What is said of a key that there is not, with the nearest of those that there are."""
    near = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}?" if near else f"Valid keys: {', '.join(valid)}."
    return f"unknown key {'.'.join(map(str, location))!r}. {hint}"


def _parse(text: str, where: str) -> Any:
    try:
        return YAML(typ="rt").load(text)
    except YAMLError as error:
        raise InvalidConfig(f"{where} is not YAML: {error}") from error


def _overriding(overrides: Sequence[str], location: Location) -> str | None:
    """What is said of the last override that gave the value at `location`, or a section around it."""
    for override in reversed(overrides):
        keys = tuple(override.partition("=")[0].strip().split("."))
        if location[: len(keys)] == keys:
            return f"The override {override!r}"
    return None


def _inside(overrides: Sequence[str], location: Location) -> list[str]:
    """Overrides that gave something in the section at `location`."""
    keys = [tuple(override.partition("=")[0].strip().split(".")) for override in overrides]
    return [
        override
        for override, given in zip(overrides, keys, strict=True)
        if given[: len(location)] == location
    ]


def _where(
    document: CommentedMap, origin: Origin, location: Location, *, missing: bool = False
) -> str:
    """Where a fault at `location` was given: in the file, in overrides, or in both, where both gave parts of a section.

    What is `missing` from a section of the file is not an override's fault.
    """
    if override := _overriding(origin.overrides, location):
        return override
    line = _line(document, location)
    file = f"{origin.path}:{line}" if line else f"{origin.path}"
    if not (inside := _inside(origin.overrides, location)):
        return file
    told = f"override{'s' if len(inside) > 1 else ''} {', '.join(map(repr, inside))}"
    if not _in_file(document, location):
        return f"The {told}"
    return file if missing else f"{file} with the {told}"


def _override(document: CommentedMap, override: str) -> None:
    name, separator, value = override.partition("=")
    keys = name.strip().split(".")
    if not separator or not all(keys):
        raise InvalidConfig(f"The override {override!r} is not of the form section.key=value.")
    section: Any = document
    for key in keys[:-1]:
        if section.get(key) is None:
            section[key] = CommentedMap()
        section = section[key]
        if not isinstance(section, CommentedMap):
            raise InvalidConfig(
                f"The override {override!r} goes into {key!r}, which is no section."
            )
    section[keys[-1]] = _parse(value, f"The override {override!r}")


def _describe(model: type[BaseModel], document: CommentedMap, origin: Origin, item: Any) -> str:
    location = tuple(part for part in item["loc"] if part not in ("[key]",))
    name = ".".join(map(str, location)) or "the file"
    missing = item["type"] in ("missing", "missing_argument")
    where = _where(document, origin, location[:-1] if missing else location, missing=missing)
    if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}: {unknown_key(location, _keys(model, location[:-1]))}"
    if missing:
        return f"{where}: {name!r} is missing."
    if item["type"] in _NO_SECTION and (keys := _keys(model, location)):
        return (
            f"{where}: {name!r}: expected a section ({', '.join(keys)}), given {item['input']!r}."
        )
    message = item["msg"].removeprefix("Value error, ")
    given = "" if isinstance(item["input"], Mapping) else f", given {item['input']!r}"
    return f"{where}: {name!r}: {message[:1].lower()}{message[1:]}{given}."


def _line(document: Any, location: Location) -> int | None:
    """Line of the deepest node of `location` that is in the file (1-based)."""
    node, line = document, None
    for key in location:
        if isinstance(node, CommentedMap) and key in node:
            position = node.lc.data.get(key) if node.lc.data else None
        elif isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node):
            position = node.lc.data.get(key) if node.lc.data else None
        else:
            break
        if position is not None:
            line = position[0] + 1
        node = node[key]
    return line


def _in_file(document: Any, location: Location) -> bool:
    """Whether the file has a node at `location`: overrides have put theirs beside its own, without a line."""
    node = document
    for key in location:
        if key not in (node.lc.data or {}):
            return False
        node = node[key]
    return True


def _keys(model: type[Any], location: Location) -> list[str]:
    """Valid keys of the section at `location`."""
    current: Any = model
    for key in location:
        hints = _fields(current)
        if key not in hints:
            return []
        current = _section(hints[str(key)])
    return list(_fields(current))


def _fields(section: Any) -> dict[str, Any]:
    if isinstance(section, type) and issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    if dataclasses.is_dataclass(section):
        hints = get_type_hints(section)
        return {field.name: hints[field.name] for field in dataclasses.fields(section)}
    return {}


def _section(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return next((part for part in get_args(annotation) if _fields(part)), annotation)
    return annotation
