"""A wrong configuration is refused with the line, what was expected, and the nearest valid key."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from offline.configs.loading import Origin, load_config
from offline.tasks.config import TaskConfig
from services.platform.errors import InvalidConfig


@dataclass(frozen=True)
class Training:
    __pydantic_config__ = ConfigDict(extra="forbid")

    steps: Annotated[int, Field(ge=1)] = 10
    rate: float = 0.1


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    task: TaskConfig
    training: Training = Training()


class Span(BaseModel):
    low: int
    high: int

    @model_validator(mode="after")
    def _check_order(self) -> "Span":
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class Spans(BaseModel):
    span: Span
    other: Span = Span(low=0, high=0)


GOOD = """
task:
  name: toy
  labels: [yes_please, no_thanks]
  data:
    train: train.jsonl
    test: test.jsonl
training:
  steps: 3
"""


def load(tmp_path: Path, text: str, *overrides: str) -> Config:
    path = tmp_path / "toy.yaml"
    path.write_text(text)
    return load_config(Config, path, overrides)


def load_spans(tmp_path: Path, text: str, *overrides: str) -> Spans:
    path = tmp_path / "toy.yaml"
    path.write_text(text)
    return load_config(Spans, path, overrides)


def test_a_good_file_loads_and_label_names_become_words(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config.task.labels == {"yes_please": "yes please", "no_thanks": "no thanks"}
    assert config.training.steps == 3


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD, "training.steps=7", "task.data.validation=held_out.csv")
    assert config.training.steps == 7
    assert config.task.data.validation == "held_out.csv"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "  steps: 3",
            "  stesp: 3",
            r"toy.yaml:9: unknown key 'training.stesp'. Did you mean 'steps'",
        ),
        ("training:", "trainign:", r"toy.yaml:8: unknown key 'trainign'. Did you mean 'training'"),
        (
            "    test:",
            "    tset:",
            r"toy.yaml:7: unknown key 'task.data.tset'. Did you mean 'test'",
        ),
        (
            "steps: 3",
            "steps: 0",
            r"toy.yaml:9: 'training.steps': .*greater than or equal to 1, given 0",
        ),
        ("steps: 3", "steps: many", r"toy.yaml:9: 'training.steps': .*integer.*given 'many'"),
        ("    test: test.jsonl\n", "", r"toy.yaml:5: 'task.data.test' is missing"),
        ("[yes_please, no_thanks]", "[alone]", r"toy.yaml:2: 'task': .*at least two labels"),
        ("name: toy", "name: [", r"is not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert old in GOOD
    with pytest.raises(InvalidConfig, match=expected):
        load(tmp_path, GOOD.replace(old, new))


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path, GOOD.replace("steps: 3", "steps: 0\n  rate: fast"))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("override", ["training.steps", "=3", "task.name.first=a"])
def test_an_override_that_says_nothing_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(InvalidConfig, match="override"):
        load(tmp_path, GOOD, override)


def test_what_is_wrong_with_an_override_is_told_of_the_override_and_not_of_the_file(
    tmp_path: Path,
) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path, GOOD, "training.steps=0", "training.raet=1", "task.data=here.csv")
    told = str(caught.value).splitlines()
    assert len(told) == 3
    assert any(
        line.startswith("The override 'training.steps=0': 'training.steps': ") for line in told
    )
    assert any(
        "'training.raet=1': unknown key 'training.raet'. Did you mean" in line for line in told
    )
    assert any(
        line.startswith("The override 'task.data=here.csv': 'task.data': expected a section (")
        and "train, validation, test" in line
        and line.endswith("given 'here.csv'.")
        for line in told
    )


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("trianing.steps=1",), "The override 'trianing.steps=1': unknown key 'trianing'."),
        (
            ("training.rates.first=1", "training.rates.last=2"),
            "The overrides 'training.rates.first=1', 'training.rates.last=2': unknown key",
        ),
    ],
)
def test_a_section_that_overrides_alone_gave_is_told_as_theirs(
    tmp_path: Path, overrides: tuple[str, ...], told: str
) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load(tmp_path, GOOD, *overrides)
    assert str(caught.value).startswith(told)


def test_a_fault_of_a_section_names_the_file_and_the_overrides_that_gave_parts_of_it(
    tmp_path: Path,
) -> None:
    document = "span:\n  low: 2\n  high: 4\n"
    with pytest.raises(InvalidConfig, match=r"toy\.yaml:1 with the override 'span\.low=5': 'span'"):
        load_spans(tmp_path, document, "span.low=5")
    with pytest.raises(InvalidConfig, match=r"toy\.yaml:1: 'span': low is above high"):
        load_spans(tmp_path, document.replace("2", "6"))
    with pytest.raises(
        InvalidConfig, match=r"^The override 'other\.low=5': 'other\.high' is missing"
    ):
        load_spans(tmp_path, document, "other.low=5")
    for override in ("other={low: 1, high: 2}", "span.low=1"):
        with pytest.raises(InvalidConfig, match=r"toy\.yaml:1: 'span\.high' is missing"):
            load_spans(tmp_path, "span:\n  low: 2\n", override)


def test_the_place_of_what_an_override_gave_is_the_override(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(GOOD)
    origin = Origin(path, ("training.steps=4", "training.steps = 5"))
    assert origin.place(("training", "steps")) == "The override 'training.steps = 5'"
    assert Origin(path, ("training={}",)).place(("training", "steps")) is not None
    assert origin.place(("training",)) == f"{path}:8"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"absent\.yaml cannot be read"):
        load_config(Config, tmp_path / "absent.yaml")


def test_a_place_is_told_for_what_the_file_says_alone(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(GOOD)
    assert Origin(path).place(("training", "steps")) == f"{path}:9"
    assert Origin(path).place(("task", "labels", 1)) == f"{path}:4"
    for absent in (("training", "rate"), ("task", "labels", 2), ("task", "name", "first")):
        assert Origin(path).place(absent) is None
    assert Origin(tmp_path / "absent.yaml").place(("task",)) is None
