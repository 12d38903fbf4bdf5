"""The configuration section of PPO."""

from typing import Annotated

from pydantic import Field

from offline.configs.section import Section
from offline.teacher.rewards import RewardConfig
from offline.teacher.sampling import SamplingConfig


class PPOConfig(Section):
    """How the prompt is improved.

    Attributes:
        steps: rounds of sampling and updating.
        batch_size: samples in a round, spread evenly over the labels.
        epochs: passes over a round's samples.
        minibatch_size: samples in one update.
        chunk_size: samples in one forward pass.
        learning_rate: of each label's own prompt.
        shared_learning_rate: of the offset that all prompts share.
        warm_up: rounds over which both rates rise, evenly, to their full size; 0 for none.
        relative_rates: take both rates times the root mean square of the tuned prompt; see
            `SoftPromptConfig`.
        value_learning_rate: of the value head.
        clip: the ratio of new to old probability counts within 1 - clip and 1 + clip.
        value_clip: the value may move that far from its old one in a round.
        discount, smoothing: gamma and lambda of the advantages.
        kl_coefficient: at the start: reward lost per nat that a token's log-probability is above the
            tuned prompt's.
        kl_target: nats a sample that the coefficient is steered to; 0 keeps it fixed.
        kl_rate: how fast it follows.
        step_kl: a pass over a round's samples is the last where the policy was further than this, in
            nats a token and on the mean of the pass, from where the round began; the pass itself is
            made to its end.
        entropy: bonus per nat of a token's entropy.
        baseline_momentum: of each label's running mean reward.
        gradient_clip: largest gradient norm.
        memory: recent samples that new ones are compared with; it starts with the tuned prompt's.
        evaluate_every: rounds between two evaluations on held-out sampling, which choose the prompt.
        evaluation_samples: samples of an evaluation.
        checkpoint_every: rounds between two checkpoints, from which a run that was stopped goes on.
        gradient_checkpointing: compute the model's layers again for the gradient instead of keeping
            what they computed: less memory, a third more time.
        sampling: temperature and top-p of evaluations and of the comparison. PPO itself samples at that
            temperature without top-p: the distribution that it optimises.
        comparison_samples: fresh samples of each prompt in the comparison.
        reward: what is rewarded.
    """

    steps: Annotated[int, Field(ge=0)] = 40
    batch_size: Annotated[int, Field(ge=2)] = 128
    epochs: Annotated[int, Field(ge=1)] = 2
    minibatch_size: Annotated[int, Field(ge=1)] = 64
    chunk_size: Annotated[int, Field(ge=1)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    shared_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warm_up: Annotated[int, Field(ge=0)] = 0
    relative_rates: bool = False
    value_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    clip: Annotated[float, Field(gt=0)] = 0.2
    value_clip: Annotated[float, Field(gt=0)] = 0.2
    discount: Annotated[float, Field(gt=0, le=1)] = 1.0
    smoothing: Annotated[float, Field(ge=0, le=1)] = 0.95
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.03
    kl_target: Annotated[float, Field(ge=0)] = 4.0
    kl_rate: Annotated[float, Field(ge=0)] = 0.1
    step_kl: Annotated[float, Field(gt=0)] = 0.05
    entropy: Annotated[float, Field(ge=0)] = 0.01
    baseline_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    memory: Annotated[int, Field(ge=0)] = 512
    evaluate_every: Annotated[int, Field(ge=1)] = 10
    evaluation_samples: Annotated[int, Field(ge=1)] = 256
    checkpoint_every: Annotated[int, Field(ge=1)] = 5
    gradient_checkpointing: bool = False
    sampling: SamplingConfig = SamplingConfig()
    comparison_samples: Annotated[int, Field(ge=2)] = 1024
    reward: RewardConfig = RewardConfig()
