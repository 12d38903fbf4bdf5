"""What a stage far down the chain would refuse is refused before the first one begins, in a dry run too."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from offline.configs.loading import Origin
from offline.configs.ready import configuration_file
from offline.configs.run import load_run_config
from offline.pipeline.hub import current_model
from offline.run import TaskRun
from offline.teacher.pretrained import model_directory
from services.platform.errors import InvalidConfig, ModelNotFound, RetriktError

sys.path.insert(0, str(Path(__file__).parent))

from hub_stand_in import MODEL, HubStandIn, Repository

NAME = "someone/writer"


@pytest.fixture(autouse=True)
def _nothing_asked_yet() -> None:
    current_model.cache_clear()


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., TaskRun]:
    """A run of helpdesk with more sections in its file, in an empty directory."""

    def make(sections: str = "", *overrides: str) -> TaskRun:
        ready = configuration_file("helpdesk")
        text = ready.read_text().replace("../tasks/helpdesk", f"{ready.parents[1]}/tasks/helpdesk")
        file = tmp_path / "tickets.yaml"
        file.write_text(f"{text.partition('# The rest')[0]}{sections}")
        config = load_run_config(str(file), overrides)
        return TaskRun(config, tmp_path / "runs", Console(stderr=True), Origin(file, overrides))

    return make


def line_of(task: TaskRun, text: str) -> int:
    """The only line of the task's file that holds that text."""
    assert task._origin is not None
    lines = task._origin.path.read_text().splitlines()
    (found,) = [number for number, line in enumerate(lines, start=1) if text in line]
    return found


def refusal(task: TaskRun, error: type[RetriktError]) -> str:
    """What a dry run says, and the run itself before any stage has left a trace."""
    with pytest.raises(error) as planned:
        task.plan()
    with pytest.raises(error) as ran:
        task.run()
    assert str(ran.value) == str(planned.value)
    assert not task.directory.exists()
    return str(planned.value)


def test_weights_of_terms_that_there_are_not_are_refused_each_with_its_line(
    task: Callable[..., TaskRun],
) -> None:
    wrong = task(
        "ppo:\n  reward:\n    weights:\n      acuracy: 1.0\n      new_wording: 0.5\n      lenght: 0.5\n"
    )
    first, second = line_of(wrong, "acuracy"), line_of(wrong, "lenght")
    told = refusal(wrong, InvalidConfig)
    assert (
        f"tickets.yaml:{first}: unknown key 'ppo.reward.weights.acuracy'. Did you mean 'accuracy'?"
        in told
    )
    assert (
        f"tickets.yaml:{second}: unknown key 'ppo.reward.weights.lenght'. Did you mean 'length'?"
        in told
    )
    assert "new_wording" not in told


def test_what_the_command_line_gave_is_told_as_such_whatever_the_file_says(
    task: Callable[..., TaskRun],
) -> None:
    override = "ppo.reward.weights.acuracy=1"
    told = refusal(task("", override), InvalidConfig)
    assert told.startswith(f"The override {override!r}: unknown key 'ppo.reward.weights.acuracy'")
    section = "generator:\n  model: ./written-in-the-file\n"
    told = refusal(task(section, "generator.model=./given"), ModelNotFound)
    assert told.startswith("The override 'generator.model=./given': generator.model: The model")


def test_a_term_of_the_user_s_own_is_known_once_its_module_is_named(
    task: Callable[..., TaskRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thankful_rewards.py").write_text(
        "import numpy as np\n"
        "from offline.teacher.rewards import reward_term\n"
        "@reward_term('thankful')\n"
        "def thankful(batch):\n"
        "    return np.array(['thank' in text for text in batch.texts], dtype=np.float32)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    weights = "ppo:\n  reward:\n    weights: {accuracy: 1.0, thankful: 0.2}\n"
    assert "ppo.reward.weights.thankful" in refusal(task(weights), InvalidConfig)
    steps = task(f"{weights}    modules: [thankful_rewards]\n").plan()
    assert next(iter(steps)).stage == "prepare"


def test_a_module_of_the_reward_that_is_not_there_is_refused_with_its_line(
    task: Callable[..., TaskRun],
) -> None:
    wrong = task("ppo:\n  reward:\n    modules:\n      - no_such_rewards\n")
    line = line_of(wrong, "no_such_rewards")
    told = refusal(wrong, InvalidConfig)
    assert f"tickets.yaml:{line}: The reward module 'no_such_rewards' cannot be imported" in told


def test_a_generator_s_directory_that_is_not_there_or_holds_no_safetensors_is_refused(
    task: Callable[..., TaskRun], tmp_path: Path
) -> None:
    section = f"generator:\n  model: {tmp_path}/writer\n"
    wrong = task(section)
    told = refusal(wrong, ModelNotFound)
    line = line_of(wrong, "model:")
    assert f"tickets.yaml:{line}: generator.model: The model directory" in told
    assert "does not exist" in told
    (tmp_path / "writer").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "writer" / name).write_text("{}")
    (tmp_path / "writer" / "pytorch_model.bin").write_bytes(b"pickled")
    assert "has no safetensors file" in refusal(task(section), ModelNotFound)


@pytest.mark.parametrize(
    ("repository", "said"),
    [
        (None, "Repository Not Found"),
        (Repository("a" * 40, {"config.json": b"{}", "pytorch_model.bin": b""}), "no safetensors"),
        (
            Repository("a" * 40, {"config.json": b"{}", "model.safetensors": b""}),
            "has no tokenizer file",
        ),
        (Repository("a" * 40, {**MODEL, "onnx/config.json": b"{}"}, gated=True), "gated"),
    ],
    ids=["unknown", "pickled", "no tokenizer", "gated"],
)
def test_a_generator_that_the_hub_does_not_give_is_refused(
    task: Callable[..., TaskRun],
    hub: HubStandIn,
    repository: Repository | None,
    said: str,
) -> None:
    if repository is not None:
        hub.models[NAME] = repository
    told = refusal(task("", f"generator.model={NAME}"), ModelNotFound)
    assert f"generator.model: The model {NAME!r}" in told
    assert said in told
    assert not hub.downloads


def test_a_generator_of_a_hub_that_is_away_is_refused_unless_it_is_in_the_cache(
    task: Callable[..., TaskRun], hub: HubStandIn
) -> None:
    hub.models[NAME] = Repository("a" * 40, MODEL)
    cached = model_directory(NAME).parents[1]
    hub.gone()
    wanted = task("", f"generator.model={NAME}")
    assert next(iter(wanted.plan())).stage == "prepare"
    shutil.rmtree(cached)
    told = refusal(wanted, ModelNotFound)
    assert (
        f"it is not in the local cache, or not whole, and the hub at {hub.url} did not answer"
        in told
    )


def test_a_generator_s_name_that_none_can_have_is_refused(
    task: Callable[..., TaskRun], hub: HubStandIn
) -> None:
    told = refusal(task("", "generator.model=not/a/name"), ModelNotFound)
    assert "'not/a/name' is neither a directory nor a valid hub name" in told


def test_a_generator_on_the_hub_is_found_there_and_not_downloaded_for_a_dry_run(
    task: Callable[..., TaskRun], hub: HubStandIn, tmp_path: Path
) -> None:
    hub.models[NAME] = Repository("a" * 40, MODEL)
    assert next(iter(task("", f"generator.model={NAME}").plan())).stage == "prepare"
    assert not hub.downloads
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", ["classifier", "verbaliser"])
def test_a_labeller_s_model_that_is_not_there_is_refused(
    task: Callable[..., TaskRun], tmp_path: Path, kind: str
) -> None:
    section = f"labeller:\n  kind: {kind}\n  {kind}: {{model: {tmp_path}/reader}}\n"
    told = refusal(task(section), ModelNotFound)
    assert f"labeller.{kind}.model: The model directory" in told


def test_the_encoder_of_the_miniature_counts_where_no_generator_is_named(
    task: Callable[..., TaskRun],
) -> None:
    told = refusal(task("", "generator.encoder=./nowhere"), ModelNotFound)
    assert "generator.encoder: The model directory nowhere does not exist" in told


def test_a_run_that_ends_before_the_generator_needs_none(task: Callable[..., TaskRun]) -> None:
    wanted = task("", "generator.model=./nowhere")
    assert [step.stage for step in wanted.plan(upto="labeller")] == ["prepare", "labeller"]
    with pytest.raises(ModelNotFound):
        wanted.plan(upto="soft_prompt")
