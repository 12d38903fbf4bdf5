"""The reward: what each term sees, and that no known hack pays."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from offline.teacher.encoder import load_encoder
from offline.teacher.rewards import (
    WEIGHTS,
    Reward,
    RewardBatch,
    RewardConfig,
    load_terms,
    reward_term,
)
from offline.teacher.soft_labels import joined
from offline.teacher.text_memory import LabelledTexts, TrainingTexts
from services.platform.errors import InvalidConfig

LABELS = ("password reset", "printer problem")
TRAINING = [
    ("I forgot my password and cannot get into my mailbox", 0),
    ("please reset the password of my account, it expired yesterday", 0),
    ("locked out after three wrong passwords, need a new one", 0),
    ("how do I change my login password from home?", 0),
    ("the printer on the second floor jams all the time", 1),
    ("nothing comes out when I print, the queue is stuck", 1),
    ("toner is empty on our office printer again", 1),
    ("my printout has grey stripes on every single page", 1),
]
HONEST = [
    ("my password ran out over the weekend, who can set another?", 0),
    ("can't sign in any more, think I need fresh credentials", 0),
    ("the new laser device only prints blank sheets today", 1),
    ("paper keeps getting stuck in the tray next to the kitchen", 1),
]


class HeadlessLabeller:
    """The packaged encoder with the nearest training text as head: sure of whatever is near to one."""

    labels = LABELS
    identity = "nearest"
    parameters = 0

    def __init__(self) -> None:
        self.encoder = load_encoder()
        self.known = self.encoder.embed([text for text, _ in TRAINING])

    def embed(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        progress: object = None,
    ) -> NDArray[np.float32]:
        return self.encoder.embed(texts, pairs)

    def soft_labels(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        embeddings: NDArray[np.float32] | None = None,
        progress: object = None,
    ) -> NDArray[np.float32]:
        if embeddings is None:
            embeddings = self.embed(texts, pairs)
        similarity = embeddings @ self.known.T
        of = np.array([label for _, label in TRAINING])
        scores = np.stack([similarity[:, of == label].max(1) for label in (0, 1)], axis=1)
        odds = np.exp(8 * scores)
        return np.asarray(odds / odds.sum(1, keepdims=True), dtype=np.float32)


@pytest.fixture(scope="module")
def labeller() -> HeadlessLabeller:
    return HeadlessLabeller()


def make_reward(labeller: HeadlessLabeller, config: RewardConfig | None = None) -> Reward:
    texts = [text for text, _ in TRAINING]
    labels = np.array([label for _, label in TRAINING])
    training = TrainingTexts.of(texts, labels, labeller.embed(texts), LABELS)
    return Reward(config or RewardConfig(), labeller, LABELS, training)


def total(
    reward: Reward,
    samples: Sequence[tuple[str, int]],
    *,
    complete: bool = True,
    recent: LabelledTexts | None = None,
) -> float:
    """Mean reward of a batch."""
    rewarded, _ = reward(
        [text for text, _ in samples],
        None,
        np.array([label for _, label in samples]),
        np.full(len(samples), complete),
        recent or LabelledTexts.none(),
    )
    return float(rewarded.total.mean())


def words(count: int, of: int) -> str:
    """Words that no other text has."""
    return " ".join(f"reason{of}of{number}" for number in range(count))


HACKS = {
    "the label's words alone": [(LABELS[label], label) for _, label in HONEST],
    "the label's words over and over, varied": [
        ("password reset password please reset", 0),
        ("reset password reset the password", 0),
        ("printer problem, problem printer", 1),
        ("problem with printer problem printer", 1),
    ],
    "copies of training texts": [TRAINING[row] for row in (0, 2, 4, 6)],
    "copies in other case and punctuation": [
        (TRAINING[row][0].upper() + "!!", TRAINING[row][1]) for row in (0, 2, 4, 6)
    ],
    "one sentence over and over": [HONEST[0], HONEST[0], HONEST[2], HONEST[2]],
    "one sentence with a word changed": [
        ("my password ran out over the weekend, who can set another?", 0),
        ("my password ran out over the weekend, who can set it?", 0),
        ("the new laser device only prints blank sheets today", 1),
        ("the new laser device only prints blank pages today", 1),
    ],
    "one phrase repeated within a text": [
        ("my password ran out " * 6, 0),
        ("fresh credentials " * 8, 0),
        ("prints blank sheets " * 6, 1),
        ("stuck in the tray " * 6, 1),
    ],
    "ever longer texts": [
        (f"{text} {words(60, row)}", label) for row, (text, label) in enumerate(HONEST)
    ],
    "ever shorter texts": [("password", 0), ("login", 0), ("printer", 1), ("toner", 1)],
    "empty texts": [("", label) for _, label in HONEST],
}
GUARDS = {
    "the label's words alone": ["no_label_words"],
    "the label's words over and over, varied": ["no_label_words"],
    "copies of training texts": ["no_copy"],
    "copies in other case and punctuation": ["no_copy"],
    "one sentence over and over": ["new_wording", "new_meaning"],
    "one sentence with a word changed": ["new_wording", "new_meaning"],
    "one phrase repeated within a text": ["no_repetition"],
    "ever longer texts": ["length"],
    "ever shorter texts": ["length"],
    "empty texts": ["length"],
}
"""The terms that are there to catch each hack."""


@pytest.mark.parametrize("hack", HACKS, ids=list(HACKS))
def test_a_hack_earns_clearly_less_than_honest_samples(
    labeller: HeadlessLabeller, hack: str
) -> None:
    reward = make_reward(labeller)
    assert total(reward, HACKS[hack]) < total(reward, HONEST) - 0.2
    for term in GUARDS[hack]:
        alone = make_reward(labeller, RewardConfig(weights={term: 1.0}))
        assert total(alone, HACKS[hack]) < total(alone, HONEST) - 0.2, term


def test_ever_longer_texts_earn_ever_less(labeller: HeadlessLabeller) -> None:
    reward = make_reward(labeller)
    earned = [
        total(
            reward,
            [
                (f"{text} {words(more, row)}".strip(), label)
                for row, (text, label) in enumerate(HONEST)
            ],
        )
        for more in (0, 10, 20, 40, 80)
    ]
    assert all(later < before - 0.02 for before, later in pairwise(earned)), earned


def test_ever_shorter_texts_earn_ever_less(labeller: HeadlessLabeller) -> None:
    reward = make_reward(labeller)
    earned = [
        total(reward, [(" ".join(text.split()[-kept:]), label) for text, label in HONEST])
        for kept in (9, 6, 4, 2, 1)
    ]
    assert all(later < before - 0.02 for before, later in pairwise(earned)), earned


def test_the_more_of_a_batch_is_one_sentence_the_less_it_earns(labeller: HeadlessLabeller) -> None:
    reward = make_reward(labeller)
    earned = [
        total(reward, [*[HONEST[0]] * copies, *HONEST[1:]][: len(HONEST)])
        for copies in range(1, len(HONEST) + 1)
    ]
    assert all(later < before - 0.05 for before, later in pairwise(earned)), earned


def test_the_more_of_a_text_is_copied_the_less_it_earns(labeller: HeadlessLabeller) -> None:
    reward = make_reward(labeller, RewardConfig(weights={"no_copy": 1.0}))
    source = TRAINING[4][0].split()
    earned = [
        total(reward, [(" ".join(source[:kept] + ["somewhere"] * (10 - kept)), 1)])
        for kept in (4, 7, 8, 9, 10)
    ]
    assert earned[0] == 1.0
    assert all(later < before for before, later in pairwise(earned)), earned
    assert earned[-1] == 0.0


def test_texts_that_never_end_earn_less(labeller: HeadlessLabeller) -> None:
    reward = make_reward(labeller)
    assert total(reward, HONEST, complete=False) < total(reward, HONEST) - 0.2


def test_a_text_for_the_wrong_label_earns_less(labeller: HeadlessLabeller) -> None:
    reward = make_reward(labeller)
    assert (
        total(reward, [(text, 1 - label) for text, label in HONEST]) < total(reward, HONEST) - 0.4
    )


def test_what_was_written_in_recent_steps_earns_less(labeller: HeadlessLabeller) -> None:
    reward = make_reward(labeller)
    texts, labels = [text for text, _ in HONEST], np.array([label for _, label in HONEST])
    recent = LabelledTexts.of(texts, labels, labeller.embed(texts))
    assert total(reward, HONEST, recent=recent) < total(reward, HONEST) - 0.4


def test_the_memory_forgets_the_oldest(labeller: HeadlessLabeller) -> None:
    texts = [text for text, _ in TRAINING]
    labels = np.array([label for _, label in TRAINING])
    whole = LabelledTexts.of(texts, labels, labeller.embed(texts))
    recent = (
        LabelledTexts.none()
        .followed_by(whole, 6)
        .followed_by(LabelledTexts.of(texts[:2], labels[:2], labeller.embed(texts[:2])), 6)
    )
    assert [" ".join(text[:2]) for text in recent.words] == [
        "the printer", "nothing comes", "toner is", "my printout", "i forgot", "please reset",
    ]  # fmt: skip
    assert recent.labels.tolist() == [1, 1, 1, 1, 0, 0]
    assert recent.embeddings.shape[0] == 6
    assert ("locked", "out") not in recent.holders
    assert recent.holders[("i", "forgot")] == 1


def test_terms_stay_between_zero_and_one(labeller: HeadlessLabeller) -> None:
    reward = make_reward(labeller)
    for samples in [HONEST, *HACKS.values()]:
        rewarded, _ = reward(
            [text for text, _ in samples],
            None,
            np.array([label for _, label in samples]),
            np.full(len(samples), True),
            LabelledTexts.none(),
        )
        for name, values in rewarded.parts.items():
            assert values.shape == (len(samples),)
            assert np.all((values >= 0) & (values <= 1)), name


def test_accuracy_is_one_when_certain_and_zero_at_chance(labeller: HeadlessLabeller) -> None:
    _, term = load_terms(RewardConfig(weights={"accuracy": 1.0}))["accuracy"]
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], dtype=np.float32)
    batch = RewardBatch(
        texts=["a"] * 3,
        pairs=None,
        labels=np.zeros(3, dtype=np.int64),
        label_words=LABELS,
        probabilities=probabilities,
        embeddings=np.eye(3, dtype=np.float32),
        complete=np.ones(3, dtype=bool),
        training=make_reward(labeller).training,
        recent=LabelledTexts.none(),
    )
    assert term(batch).tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)


def test_a_pair_is_rewarded_as_a_whole(labeller: HeadlessLabeller) -> None:
    reward = make_reward(labeller, RewardConfig(weights={"no_copy": 1.0, "new_wording": 1.0}))
    first = ["my password ran out", "my password ran out"]
    second = ["who can set another?", "nobody told me so before"]
    rewarded, _ = reward(
        first, second, np.array([0, 0]), np.array([True, True]), LabelledTexts.none()
    )
    assert np.all(rewarded.parts["new_wording"] < 1), "the first texts are the same"
    assert np.all(rewarded.parts["new_wording"] > 0), "the second texts are not"


def not_copied(
    labeller: HeadlessLabeller,
    sides: tuple[Sequence[str], Sequence[str]],
    pairs: Sequence[tuple[str, str]],
) -> list[float]:
    """The term `no_copy` of pairs, where the training pairs, one a label, are made of those sides."""
    texts = joined(*sides)
    training = TrainingTexts.of(texts, np.array([1, 0]), labeller.embed(texts), LABELS, sides=sides)
    reward = Reward(RewardConfig(weights={"no_copy": 1.0}), labeller, LABELS, training)
    rewarded, _ = reward(
        [first for first, _ in pairs],
        [second for _, second in pairs],
        np.zeros(len(pairs), dtype=np.int64),
        np.full(len(pairs), True),
        LabelledTexts.none(),
    )
    found: list[float] = rewarded.total.tolist()
    return found


def test_copies_of_two_examples_put_together_are_no_new_pair(labeller: HeadlessLabeller) -> None:
    firsts = ["the printer on the second floor jams", "I forgot my password at home"]
    seconds = ["nothing comes out of it today", "who can set another one for me"]
    new = "paper keeps getting stuck in the tray"
    pairs = {
        (firsts[0], seconds[0]): 0.0,
        (firsts[0], seconds[1]): 0.0,
        (firsts[0], new): 0.5,
        (new, seconds[1]): 0.5,
        # A first text in the second's place says something else.
        (new, firsts[0]): 1.0,
        # The same text twice is no pair.
        (new, new): 0.0,
    }
    values = not_copied(labeller, (firsts, seconds), list(pairs))
    assert values == pytest.approx(list(pairs.values()))


def test_the_same_text_twice_is_no_pair_unless_training_pairs_are_like_that(
    labeller: HeadlessLabeller,
) -> None:
    firsts = ["the printer on the second floor jams all the time", "I forgot my password at home"]
    others = ["nothing comes out of it today", "who can set another one for me"]
    half = [f"{' '.join(first.split()[:4])} and so on" for first in firsts]
    new = "paper keeps getting stuck in the tray next to the kitchen"
    seconds = (
        "and so it went on for a week",
        "paper keeps getting lost there",
        # Of its eight sequences of three words the first text has seven.
        "getting stuck in the tray next to the kitchen table",
        new.upper(),
    )
    pairs = [(new, second) for second in seconds]
    assert not_copied(labeller, (firsts, others), pairs) == pytest.approx([1.0, 1.0, 0.25, 0.0])
    assert not_copied(labeller, (firsts, half), pairs) == pytest.approx([1.0, 1.0, 0.25, 0.0])
    assert not_copied(labeller, (firsts, firsts), pairs) == pytest.approx([1.0] * 4)


def test_copies_of_unlabelled_texts_count_where_a_weight_is_given(
    labeller: HeadlessLabeller,
) -> None:
    texts, labels = [text for text, _ in TRAINING], np.array([label for _, label in TRAINING])
    training = TrainingTexts.of(
        texts, labels, labeller.embed(texts), LABELS, unlabelled=["paper jams again and again"]
    )
    written = [("Paper jams, again and again!", 1), ("the tray takes no paper at all", 1)]
    plain, weighed = (
        Reward(RewardConfig(weights=weights), labeller, LABELS, training)
        for weights in (WEIGHTS, {**WEIGHTS, "no_copy_unlabelled": 0.5})
    )
    args = [text for text, _ in written], None, np.array([1, 1]), np.full(2, True)
    before, after = (reward(*args, LabelledTexts.none())[0] for reward in (plain, weighed))
    assert "no_copy_unlabelled" not in before.parts
    assert after.parts["no_copy_unlabelled"].tolist() == [0.0, 1.0]
    assert (after.total - before.total).tolist() == pytest.approx([0.0, 0.5], abs=1e-6)


def test_users_register_terms_of_their_own(
    labeller: HeadlessLabeller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "polite_rewards.py").write_text(
        "import numpy as np\n"
        "from offline.teacher.rewards import RewardBatch, reward_term\n"
        "@reward_term('polite')\n"
        "def polite(batch):\n"
        "    return np.array(['please' in text for text in batch.texts], dtype=np.float32)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = RewardConfig(weights={"polite": 2.0}, modules=("polite_rewards",))
    assert total(make_reward(labeller, config), [("please help", 0), ("help", 0)]) == 1.0


def test_a_term_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InvalidConfig, match=r"'acuracy'.*accuracy, .*new_wording"):
        load_terms(RewardConfig(weights={"acuracy": 1.0}))


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidConfig, match="no_such_rewards"):
        load_terms(RewardConfig(modules=("no_such_rewards",)))


def test_two_modules_cannot_share_a_name() -> None:
    with pytest.raises(InvalidConfig, match="accuracy"):

        @reward_term("accuracy")
        def accuracy(batch: RewardBatch) -> NDArray[np.float32]:
            return np.zeros(len(batch.texts), dtype=np.float32)
