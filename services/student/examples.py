"""Examples that the page offers: texts that somebody chose to show, never taken from a task's data."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from services.platform.errors import InvalidData

EXAMPLES = "examples.json"
"""In the task's directory: a JSON list of texts, or of pairs `["first", "second"]`."""

MOST_EXAMPLES = 12
MOST_BYTES = 64 * 1024

Example = str | tuple[str, str]
_LIST: TypeAdapter[list[Example]] = TypeAdapter(list[Example])


def read_examples(task_dir: Path) -> list[Example]:
    """The examples of a task, at most `MOST_EXAMPLES`; none where there is no such file.

    Raises:
        InvalidData: the file cannot be read, or is not a list of texts or pairs of texts.
    """
    path = task_dir / EXAMPLES
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidData(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) > MOST_BYTES:
        raise InvalidData(f"{path} has more than {MOST_BYTES} bytes.")
    try:
        examples = _LIST.validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = "".join(f"[{part}]" for part in fault["loc"][:1])
        raise InvalidData(
            f"{path}{where} cannot be used: {fault['msg']}.",
            hint='Expected a JSON list of texts, or of pairs ["first", "second"].',
        ) from error
    return examples[:MOST_EXAMPLES]
