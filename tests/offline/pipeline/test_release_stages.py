"""Which stages of a release may run beside each other."""

import pytest

from offline.configs.run import load_run_config
from offline.pipeline.release_stages import STAGES, beside

ALWAYS = {"student", "baselines", "index"}


def test_with_what_comes_with_retrikt_prompts_are_compared_beside_the_others() -> None:
    found = beside(load_run_config("helpdesk"))
    assert found == ALWAYS | {"comparison", "knowledge"}
    assert found <= {stage.name for stage in STAGES}


@pytest.mark.parametrize(
    "override",
    [
        "generator.model=some/language-model",
        "labeller.encoder.model=some/encoder",
        "engine.kind=ray",
    ],
)
def test_what_may_be_large_or_is_on_a_cluster_is_not_there_twice(override: str) -> None:
    assert beside(load_run_config("helpdesk", [override])) == ALWAYS
