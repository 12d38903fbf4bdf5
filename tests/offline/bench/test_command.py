"""The command line: lists behind one option, ablations by name, and what is refused."""

import pytest

from offline.bench.command import spread_lists
from offline.bench.variants import variant_of, variants
from services.platform.errors import InvalidConfig


def test_several_values_follow_one_option() -> None:
    given = [
        "bench",
        "accuracy",
        "--tasks",
        "a",
        "b",
        "--quick",
        "--seeds",
        "0",
        "1",
        "--shots",
        "8",
    ]
    assert spread_lists(given) == [
        *("bench", "accuracy", "--tasks", "a", "--tasks", "b", "--quick"),
        *("--seeds", "0", "--seeds", "1", "--shots", "8"),
    ]


def test_other_commands_are_left_alone() -> None:
    given = ["run", "helpdesk", "--tasks", "a", "b"]
    assert spread_lists(given) == given


def test_ablations_are_overrides_under_a_name_of_their_own() -> None:
    found = variants(["no-ppo"], ["generated"], [8], [1000])
    assert [variant.system for variant in found] == [
        "retrikt/no_ppo",
        "retrikt/without_generated",
        "retrikt/k=8",
        "retrikt/store=1000",
    ]
    assert found[0].overrides == ("ppo.steps=0",)
    assert found[2].k == 8
    assert found[3].store_items == 1000
    assert [variant_of(variant.name) for variant in found] == found


@pytest.mark.parametrize("name", ["no_student", "k=0", "store=many", ""])
def test_an_unknown_ablation_is_refused(name: str) -> None:
    with pytest.raises(InvalidConfig, match="no ablation"):
        variant_of(name)
