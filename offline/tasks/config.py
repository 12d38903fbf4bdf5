"""What a task is: its labels, its text fields, and where its examples are."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from offline.configs.section import Section


class DataConfig(Section):
    """Where the examples are.

    Each split is a file (`.jsonl`, `.csv`, `.parquet`; relative to `directory`, or to the
    configuration file where none is given) or a Hugging Face data set as `hf:NAME[/CONFIG]@SPLIT`;
    NAME is one of the hub's, or a directory.
    """

    # What a run depends on is the files' content, not where they lie.
    directory: Path | None = Field(default=None, exclude=True)
    train: str
    validation: str | None = None
    test: str
    unlabelled: str | None = None

    def sources(self) -> dict[str, str]:
        """What is named for each split, by the split's name."""
        named = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
            "unlabelled": self.unlabelled,
        }
        return {split: source for split, source in named.items() if source is not None}

    def path(self, source: str) -> Path:
        """The path of a source that is a file."""
        return (self.directory or Path()) / Path(source).expanduser()


class FieldsConfig(Section):
    """Names of the columns."""

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"


class TaskConfig(Section):
    """A task.

    `labels` lists the label names, or maps each to the text that describes it (its name in words
    where it is a list). `shots` keeps that many examples a class: the rows of each class in file
    order, shuffled with `random.Random(seed)`, the first n. `leftover` says what happens to the
    others: `drop`, or `unlabelled`, which keeps their texts alone.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    labels: dict[str, str]
    data: DataConfig
    fields: FieldsConfig = FieldsConfig()
    shots: Annotated[int, Field(ge=2)] | None = None
    leftover: Literal["drop", "unlabelled"] = "drop"

    @field_validator("labels", mode="before")
    @classmethod
    def _words_for_names(cls, value: object) -> object:
        if isinstance(value, list):
            # YAML reads a bare true as a truth value; rows that hold one are read as "true" too.
            names = [str(name).lower() if isinstance(name, bool) else str(name) for name in value]
            if len(set(names)) != len(names):
                raise ValueError("a label is named twice")
            return {name: name.replace("_", " ").replace("-", " ").strip() for name in names}
        return value

    @model_validator(mode="after")
    def _two_labels(self) -> "TaskConfig":
        if len(self.labels) < 2:
            raise ValueError(f"a classifier needs at least two labels, {len(self.labels)} is named")
        return self

    @property
    def pair(self) -> bool:
        return self.fields.text_pair is not None
