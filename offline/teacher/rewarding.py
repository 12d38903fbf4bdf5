"""The reward of a task's samples: its terms beside the task's own texts and their embeddings."""

from offline.tasks.prepared import PreparedTask
from offline.teacher.labeller import Labeller
from offline.teacher.rewards import Reward, RewardConfig
from offline.teacher.soft_labels import joined
from offline.teacher.text_memory import TrainingTexts


def rewarding(task: PreparedTask, labeller: Labeller, config: RewardConfig) -> Reward:
    """The reward that `config` describes, for samples of a task.

    Args:
        task: whose training texts samples are held against.
        labeller: whose soft labels are rewarded, and whose embeddings say what is new.
        config: terms and weights.
    """
    names = [task.label_texts[label] for label in task.labels]
    examples, rest = task.examples("train"), task.examples("unlabelled")
    training = TrainingTexts.of(
        joined(examples.texts, examples.pairs),
        task.label_ids(examples),
        labeller.embed(examples.texts, examples.pairs),
        names,
        sides=None if examples.pairs is None else (examples.texts, examples.pairs),
        unlabelled=joined(rest.texts, rest.pairs),
    )
    return Reward(config, labeller, names, training)
