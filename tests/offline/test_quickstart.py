"""What the quickstart leaves beside its release: examples for the page, which nothing was trained on."""

import json
from pathlib import Path

from offline.quickstart import HELPDESK, offer_examples
from services.student.examples import EXAMPLES, read_examples


def test_the_examples_of_helpdesk_can_be_read_and_are_in_none_of_its_files(tmp_path: Path) -> None:
    offer_examples(tmp_path)
    examples = read_examples(tmp_path)
    assert len(examples) >= 4
    data = {
        json.loads(line)["text"].casefold()
        for file in HELPDESK.glob("*.jsonl")
        for line in file.read_text(encoding="utf-8").splitlines()
    }
    assert len(data) > 2000
    assert not {str(example).casefold() for example in examples} & data


def test_examples_that_somebody_chose_stay(tmp_path: Path) -> None:
    (tmp_path / EXAMPLES).write_text('["my own"]', encoding="utf-8")
    offer_examples(tmp_path)
    assert read_examples(tmp_path) == ["my own"]
