"""What a request wants classified: a text, a pair of texts, or a batch of either."""

from collections.abc import Callable, Mapping
from typing import Any

from services.platform.errors import BatchTooLarge, InvalidRequest
from services.student.predictor import TextInput

Faults = Mapping[int, InvalidRequest]
NO_FAULTS: Faults = {}


def read_inputs(
    inputs: Any, pair: bool, max_texts: int, partial: bool
) -> tuple[list[TextInput], bool, Faults]:
    """The texts, whether they are one input, and the errors of what is not among them.

    Args:
        inputs: the field of a body.
        pair: whether the task is about pairs of texts.
        max_texts: inputs that a request may hold.
        partial: collect the errors of a batch's inputs, by their position; else the first is raised.

    Raises:
        InvalidRequest: an input cannot be classified; the message names it.
        BatchTooLarge: there are too many.
    """
    if type(inputs) is str:
        if pair:
            raise InvalidRequest(
                "inputs is one text, but this task is about pairs of texts.",
                hint='Send ["first", "second"], or [["first", "second"], …] for a batch.',
            )
        return [TextInput(read_text(inputs, "inputs"))], True, NO_FAULTS
    if type(inputs) is not list or not inputs:
        raise InvalidRequest(
            "inputs is neither a text nor a list with something in it.",
            hint=f"Expected {_expected(pair)}.",
        )
    if all(type(entry) is str for entry in inputs):
        return [_flat(inputs, pair)], True, NO_FAULTS
    check_size(len(inputs), max_texts)
    read = _collect if partial else _all
    texts, faults = read(inputs, lambda entry, where: _entry(entry, where, pair))
    return texts, False, faults


def check_size(inputs: int, most: int, *, field: str | None = None) -> None:
    """Raises BatchTooLarge where a request holds more inputs than it may, or than a request with `field` may."""
    if inputs > most:
        asked = "" if field is None else f" with {field!r}"
        raise BatchTooLarge(
            f"The request holds {inputs} inputs, at most {most} are taken{asked}.",
            hint="Send them in several requests.",
        )


def _all(
    inputs: list[Any], read: Callable[[Any, str], TextInput]
) -> tuple[list[TextInput], Faults]:
    return [read(entry, f"inputs[{index}]") for index, entry in enumerate(inputs)], NO_FAULTS


def _collect(
    inputs: list[Any], read: Callable[[Any, str], TextInput]
) -> tuple[list[TextInput], Faults]:
    texts, faults = [], {}
    for index, entry in enumerate(inputs):
        try:
            texts.append(read(entry, f"inputs[{index}]"))
        except InvalidRequest as error:
            faults[index] = error
    return texts, faults


def _flat(inputs: list[str], pair: bool) -> TextInput:
    """A list of texts alone: a pair, or one text in a list, as TEI takes it."""
    if pair:
        if len(inputs) != 2:
            raise InvalidRequest(
                f"inputs holds {len(inputs)} texts, a pair has two.",
                hint='Send [["first", "second"], …] for a batch.',
            )
        return TextInput(read_text(inputs[0], "inputs[0]"), read_text(inputs[1], "inputs[1]"))
    if len(inputs) != 1:
        raise InvalidRequest(
            f"inputs is a list of {len(inputs)} texts, which elsewhere means a pair; this task is "
            "about single texts.",
            hint='Send [["a"], ["b"]] for a batch.',
        )
    return TextInput(read_text(inputs[0], "inputs[0]"))


def _entry(entry: Any, where: str, pair: bool) -> TextInput:
    if type(entry) is not list:
        raise InvalidRequest(
            f"{where} is not a list, as each input of a batch is.",
            hint=f"Expected {_expected(pair)}.",
        )
    if len(entry) != 1 + pair:
        raise InvalidRequest(
            f"{where} holds {len(entry)} texts, expected {1 + pair}.",
            hint=f"This task is about {'pairs of texts' if pair else 'single texts'}.",
        )
    if pair:
        return TextInput(read_text(entry[0], f"{where}[0]"), read_text(entry[1], f"{where}[1]"))
    return TextInput(read_text(entry[0], where))


def read_text(text: Any, where: str) -> str:
    """A text with something in it. Raises InvalidRequest, which names it by `where`."""
    if type(text) is not str:
        raise InvalidRequest(f"{where} is not a text.")
    if not text or text.isspace():
        raise InvalidRequest(f"{where} is empty.", hint="There is nothing to classify in it.")
    return text


def _expected(pair: bool) -> str:
    if pair:
        return '["first", "second"] or [["first", "second"], …]'
    return '"a text" or [["a text"], ["another"]]'
