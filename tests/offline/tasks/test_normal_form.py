"""Two texts with one form are one text; signs tell texts apart where there is nothing else."""

import pytest

from offline.tasks.normal_form import has_letters_or_digits, letters_and_digits


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Reset my password!", "reset MY pass word"),
        ("ﬁle № 5", "FILE no 5"),
        ("👍 👍", "👍👍"),
        ("", " \n"),
    ],
)
def test_the_same_text_written_otherwise_has_the_same_form(one: str, other: str) -> None:
    assert letters_and_digits(one) == letters_and_digits(other)


@pytest.mark.parametrize(
    ("one", "other"), [("👍", "👎"), ("?!", "..."), ("a", "b"), ("?", ""), ("pay 5", "pay 6")]
)
def test_other_texts_have_other_forms(one: str, other: str) -> None:
    assert letters_and_digits(one) != letters_and_digits(other)
    assert letters_and_digits("same", one) != letters_and_digits("same", other)


def test_where_a_pair_is_cut_counts() -> None:
    assert letters_and_digits("ab", "c") != letters_and_digits("a", "bc")


@pytest.mark.parametrize(
    ("text", "found"), [("a?", True), ("5", True), ("👍", False), ("_-", False), ("", False)]
)
def test_whether_there_is_a_letter_or_digit(text: str, found: bool) -> None:
    assert has_letters_or_digits(text) is found
