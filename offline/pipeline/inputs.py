"""What a run names and does not hold: data, models, terms of the reward. Told in seconds, before the first stage."""

from collections.abc import Set
from typing import TYPE_CHECKING

from offline.configs.loading import Location, Origin, unknown_key
from offline.configs.run import RunConfig
from offline.pipeline.hub import check_model
from offline.pipeline.outside import teacher_models
from offline.tasks.config import DataConfig
from offline.teacher.rewards import TERMS, RewardConfig, load_terms
from services.platform.errors import InvalidConfig, InvalidData, ModelNotFound

if TYPE_CHECKING:
    from offline.student.starting_encoder import StudentEncoderConfig

_REWARD = ("ppo", "reward")


def check_inputs(config: RunConfig, stages: Set[str], origin: Origin | None = None) -> None:
    """Refuse what a stage far down the chain would refuse.

    Args:
        config: of the run.
        stages: names of those that may run: models of others need not be there. Keys and data are checked whatever
            runs.
        origin: what `config` was read from; errors name its lines and overrides.

    Raises:
        InvalidData: a data file is missing.
        InvalidConfig: a weight is given to no term of the reward, a module of the reward cannot be imported, or a
            student is to start from what is no such encoder.
        ModelNotFound: a model is not to be had.
    """
    _check_data(config.task.data, origin)
    _check_reward(config.ppo.reward, origin)
    for stage, models in teacher_models(config).items():
        if stage in stages:
            _check_models(models, origin)
    student = config.student
    if student.encoder is not None:
        _check_starting_encoder(student.encoder, student.shape.max_tokens, origin)


def _check_starting_encoder(
    encoder: "StudentEncoderConfig", max_tokens: int, origin: Origin | None
) -> None:
    from offline.student.starting_encoder import load_starting_encoder

    try:
        load_starting_encoder(encoder, max_tokens)
    except (ModelNotFound, InvalidConfig) as error:
        where = _where(origin, ("student", "encoder", "model"))
        raise type(error)(f"{where}student.encoder: {error.message}", hint=error.hint) from error


def _check_data(data: DataConfig, origin: Origin | None) -> None:
    for split, source in data.sources().items():
        if not source.startswith("hf:") and not (path := data.path(source)).is_file():
            where = _where(origin, ("task", "data", split))
            raise InvalidData(
                f"{where}The {split} split's file {path} does not exist.",
                hint=f"Name the file, task.data.{split}, or its directory: "
                "--set task.data.directory=DIR.",
            )


def _check_reward(reward: RewardConfig, origin: Origin | None) -> None:
    for number, module in enumerate(reward.modules):
        try:
            # Registers the module's terms, as PPO does.
            load_terms(RewardConfig(weights={}, modules=(module,)))
        except InvalidConfig as error:
            where = _where(origin, (*_REWARD, "modules", number))
            raise InvalidConfig(f"{where}{error.message}", hint=error.hint) from error
    load_terms(RewardConfig(weights={}))
    weights = (*_REWARD, "weights")
    wrong = [
        f"{_where(origin, (*weights, name))}{unknown_key((*weights, name), sorted(TERMS))}"
        for name in reward.weights
        if name not in TERMS
    ]
    if wrong:
        raise InvalidConfig(
            "\n".join(wrong),
            hint="A term of your own is registered with `reward_term`, in a module that ppo.reward.modules names.",
        )


def _check_models(models: dict[str, str], origin: Origin | None) -> None:
    for key, name in models.items():
        try:
            check_model(name)
        except ModelNotFound as error:
            where = _where(origin, tuple(key.split(".")))
            raise ModelNotFound(f"{where}{key}: {error.message}", hint=error.hint) from error


def _where(origin: Origin | None, location: Location) -> str:
    """`tickets.yaml:9: `; nothing for what is there by default."""
    place = None if origin is None else origin.place(location)
    return "" if place is None else f"{place}: "
