"""A version counts as open only while no other one may have taken its place."""

import pytest

from services.store.last_read import LastRead


def test_the_version_that_was_read_last_is_known() -> None:
    read = LastRead()
    assert read.last is None
    for version in ("one", "two", "two"):
        with read.reading(version):
            pass
        assert read.last == version


def test_while_another_version_is_begun_with_none_is_known() -> None:
    read = LastRead()
    with read.reading("one"):
        pass
    with read.reading("one"):
        assert read.last == "one"
    with read.reading("two"):
        assert read.last is None


def test_a_read_that_another_one_came_into_tells_nothing() -> None:
    read = LastRead()
    with read.reading("one"), read.reading("two"):
        pass
    assert read.last is None, "the end of the first read says nothing of what the second one closed"
    with read.reading("two"):
        pass
    assert read.last == "two"


def test_a_read_that_fails_is_none() -> None:
    read = LastRead()
    with read.reading("one"):
        pass
    with pytest.raises(ZeroDivisionError), read.reading("one"):
        _ = 1 / 0
    assert read.last is None
