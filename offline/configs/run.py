"""The configuration of a whole run: a task, and a section for every stage that makes its release."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from offline.configs.loading import load_config
from offline.configs.ready import configuration_file
from offline.configs.section import Section
from offline.pipeline.engines import EngineConfig
from offline.report.evaluation import EvaluateConfig
from offline.store.config import StoreConfig
from offline.store.gate import ReleaseConfig
from offline.store.knowledge import KnowledgeConfig
from offline.student.baselines import BaselinesConfig
from offline.student.config import StudentConfig
from offline.tasks.config import TaskConfig
from offline.teacher.generation import GenerateConfig
from offline.teacher.generator import GeneratorConfig
from offline.teacher.labeller import LabellerConfig
from offline.teacher.ppo import PPOConfig
from offline.teacher.soft_prompt import SoftPromptConfig
from services.platform.errors import InvalidConfig


class RunConfig(Section):
    """Everything that a release depends on.

    Attributes:
        seed: of the run; every stage derives its own random numbers from it.
        processes: how many stages run at the same time where they do not need each other. Those that may do so
            share the cores evenly, and another number of threads may round sums otherwise; each takes the memory
            of a process with a labeller in it, the comparison of prompts also that of a generator.
        engine: where long work is done. No figure hangs on it.
        task: labels and data.
        labeller, generator, soft_prompt, ppo, generate, knowledge, student, baselines, store,
            evaluate, release: what the stage of that name reads; see the class of each.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    processes: Annotated[int, Field(ge=1)] = 2
    engine: EngineConfig = EngineConfig()
    task: TaskConfig
    labeller: LabellerConfig = LabellerConfig()
    generator: GeneratorConfig = GeneratorConfig()
    soft_prompt: SoftPromptConfig = SoftPromptConfig()
    ppo: PPOConfig = PPOConfig()
    generate: GenerateConfig = GenerateConfig()
    knowledge: KnowledgeConfig = KnowledgeConfig()
    student: StudentConfig = StudentConfig()
    baselines: BaselinesConfig = BaselinesConfig()
    store: StoreConfig = StoreConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    release: ReleaseConfig = ReleaseConfig()


def load_run_config(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration in a file, or a ready one by its name.

    Args:
        name: path of a YAML file, or `helpdesk` and whatever else `offline/configs` holds.
        overrides: `section.key=value`, over the file.

    Raises:
        InvalidConfig: there is no such file, or it holds what is unknown or wrong.
    """
    path = configuration_file(name)
    config = load_config(RunConfig, path, overrides)
    # A path on the command line starts where the user stands, one in the file where the file lies.
    given_here = any(override.startswith("task.data.directory=") for override in overrides)
    base = Path.cwd() if given_here else path.resolve().parent
    given = config.task.data.directory
    directory = base if given is None else base / given.expanduser()
    data = config.task.data.model_copy(update={"directory": directory})
    if "student" in config.baselines.model_fields_set:
        raise InvalidConfig(
            "baselines.student cannot be set: the baselines have the student's sizes and training.",
            hint="Set it under student.",
        )
    return config.model_copy(
        update={
            "task": config.task.model_copy(update={"data": data}),
            "baselines": config.baselines.model_copy(update={"student": config.student}),
        }
    )
