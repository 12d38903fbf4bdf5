"""Samples for labels that come with an edit, new or not: written by the run's frozen generator, sieved by a labeller.

Nothing of the release is trained for it. The soft prompt starts from the labels' names and is tuned on their
labelled texts alone; the labeller is fitted anew on all labelled texts, as the run's was, so that it knows new
labels. How each is done is what the run's own stages say.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from offline.knowledge.additions import NewItem
from offline.knowledge.items import Items
from offline.knowledge.journal import AddedItem, item_keys, loose_forms
from offline.knowledge.sources import Sources
from offline.stages.knowledge import EMBEDDINGS
from offline.store.knowledge import KnowledgeConfig
from offline.tasks.label_words import label_words
from offline.tasks.normal_form import letters_and_digits
from offline.tasks.prepared import PreparedTask
from offline.teacher.encoder import load_encoder
from offline.teacher.generation import GenerateConfig
from offline.teacher.generator import SHARED_TOKENS, Generator, load_generator
from offline.teacher.labeller import Labeller, LabellerConfig
from offline.teacher.labeller_fit import fit_labeller
from offline.teacher.quality import QualityConfig, screen
from offline.teacher.soft_labels import joined
from offline.teacher.soft_prompt import SoftPrompt, SoftPromptConfig, name_prompt, tune
from offline.teacher.text_scorer import LabelledRows
from offline.teacher.writing import Written, balanced_labels, write
from services.platform.errors import InvalidData

NEEDED = ("prepare", "labeller", "soft_prompt", "generator", "generate", "knowledge")
"""Stages of the run that made the live release whose results are read."""


@dataclass(frozen=True, slots=True)
class WrittenSamples:
    """What came of it.

    Attributes:
        items: the samples that are kept, each with the label it was written for and the labeller's soft label.
        figures: how many were `written` and `kept`, and why others were `dropped`, by reason.
    """

    items: tuple[AddedItem, ...]
    figures: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Labelled:
    """Texts with the labels that people gave them; `pairs` None for single texts."""

    texts: list[str]
    pairs: list[str] | None
    labels: list[str]

    def of(self, labels: Sequence[str]) -> "_Labelled":
        rows = [row for row, label in enumerate(self.labels) if label in labels]
        return _Labelled(
            [self.texts[row] for row in rows],
            None if self.pairs is None else [self.pairs[row] for row in rows],
            [self.labels[row] for row in rows],
        )


def written_samples(
    items: Items, new: Sequence[NewItem], sources: Sources, count: int, *, seed: int
) -> WrittenSamples:
    """Write samples for every label of the new items.

    Kept are complete ones that pass the run's quality filters, that the labeller takes for the label they were written
    for, and that are neither knowledge nor rows of the test split.

    Args:
        items: of the live release.
        new: what a person adds, with labels.
        sources: that the release came from.
        count: samples that are written for each label; fewer are kept.
        seed: of the samples, the folds of the labeller and the tuning.

    Raises:
        InvalidData: an item has no label, a label has fewer than two texts, or a stage of the run is not here.
    """
    wanted = list(dict.fromkeys(_label_of(item) for item in new))
    missing = [stage for stage in NEEDED if stage not in sources.stages]
    if missing:
        raise InvalidData(
            f"No samples can be written: the {_plural('stage', missing)} {', '.join(missing)} of the run that made "
            f"the live release {'is' if len(missing) == 1 else 'are'} not here.",
            hint="Edit where the run was made and its stages are kept, or leave --samples out.",
        )
    task = PreparedTask.load(sources.stages["prepare"].directory)
    labelled = _labelled(task, items, new)
    for label in wanted:
        if labelled.labels.count(label) < 2:
            raise InvalidData(
                f"The label {label!r} has one text, which is too few to write samples by.",
                hint="Give at least two of it; ten are a good number.",
            )
    words = {label: _words(task, label) for label in dict.fromkeys(labelled.labels)}
    settings = LabellerConfig.model_validate(sources.stages["labeller"].config)
    encoder = load_encoder(settings.encoder)
    embeddings = encoder.embed(labelled.texts, labelled.pairs)
    place = {label: position for position, label in enumerate(words)}
    rows = LabelledRows(
        labelled.texts,
        labelled.pairs,
        np.array([place[label] for label in labelled.labels]),
        [letters_and_digits(text) for text in joined(labelled.texts, labelled.pairs)],
    )
    labeller = fit_labeller(
        rows, embeddings, words, encoder, settings, seed=seed, progress=lambda *_: None
    ).labeller
    generator = load_generator(sources.stages["generator"].directory)
    tuning = SoftPromptConfig.model_validate(sources.stages["soft_prompt"].config)
    prompt = _prompt(
        generator, {label: words[label] for label in wanted}, labelled.of(wanted), tuning, seed
    )
    sampling = GenerateConfig.model_validate(sources.stages["generate"].config).sampling
    written = write(
        generator,
        prompt.fixed(),
        balanced_labels(count * len(wanted), len(wanted)),
        sampling,
        torch.Generator().manual_seed(seed),
    )
    quality = KnowledgeConfig.model_validate(sources.stages["knowledge"].config).quality
    # What is taken for another label tells nothing of this one; and few are kept, however unevenly they pass.
    quality = quality.model_copy(update={"other_label": "drop", "balance": float(count)})
    known_texts, known_embeddings = _known(sources.stages["knowledge"].directory)
    test = sources.split("test")
    sieve = Sieve(
        labeller=labeller,
        words=tuple(words.values()),
        texts=[*known_texts, *joined(labelled.texts, labelled.pairs)],
        embeddings=np.concatenate([known_embeddings, embeddings]),
        keys=frozenset(items.keys),
        test=frozenset()
        if test is None
        else frozenset(loose_forms(test["text"].to_pylist(), test["text_pair"].to_pylist())),
        quality=quality,
    )
    return sieve(written, wanted, generator.identity)


@dataclass(frozen=True, slots=True)
class Sieve:
    """What samples are screened by.

    Attributes:
        labeller: that knows all labels.
        words: of its labels.
        texts, embeddings: (n) known texts, pairs joined, and the labeller's embeddings (n, d) of them.
        keys: of the live release's items.
        test: loose forms of the rows of the test split.
        quality: thresholds.
    """

    labeller: Labeller
    words: tuple[str, ...]
    texts: list[str]
    embeddings: NDArray[np.float32]
    keys: frozenset[str]
    test: frozenset[str]
    quality: QualityConfig

    def __call__(self, written: Written, wanted: Sequence[str], generator: str) -> WrittenSamples:
        """The samples that pass; `wanted` names the labels that they were written for, by position."""
        total, labeller = len(written.texts), self.labeller
        rows = [row for row in range(total) if written.complete[row] and written.texts[row]]
        texts = [written.texts[row] for row in rows]
        pairs = None if written.pairs is None else [written.pairs[row] for row in rows]
        asked = [wanted[label] for label in written.labels[rows]]
        dropped = Counter({"incomplete": total - len(rows)})
        kept: list[int] = []
        soft = np.empty((0, len(labeller.labels)), np.float32)
        if rows:
            embeddings = labeller.embed(texts, pairs)
            soft = labeller.soft_labels(texts, pairs, embeddings=embeddings)
            screened = screen(
                joined(texts, pairs),
                np.array([labeller.labels.index(label) for label in asked]),
                embeddings,
                soft,
                known_texts=self.texts,
                known_embeddings=self.embeddings,
                label_texts=self.words,
                config=self.quality,
            )
            dropped.update(screened.counts())
            keys, loose = item_keys(texts, pairs), loose_forms(texts, pairs)
            kept = [
                row
                for row in screened.kept
                if keys[row] not in self.keys and loose[row] not in self.test
            ]
            dropped["known"] += len(screened.kept) - len(kept)
        return WrittenSamples(
            tuple(
                AddedItem(
                    text=texts[row],
                    text_pair=None if pairs is None else pairs[row],
                    label=asked[row],
                    probabilities=dict(zip(labeller.labels, map(float, soft[row]), strict=True)),
                    generator=generator,
                    labeller=labeller.identity,
                )
                for row in kept
            ),
            {
                "written": total,
                "kept": {label: sum(asked[row] == label for row in kept) for label in wanted},
                "dropped": {reason: number for reason, number in dropped.items() if number},
            },
        )


def _prompt(
    generator: Generator,
    words: Mapping[str, str],
    labelled: _Labelled,
    config: SoftPromptConfig,
    seed: int,
) -> SoftPrompt:
    """The prompt of these labels: their words, tuned on their texts."""
    prompt = name_prompt(generator, list(words.values()), SHARED_TOKENS, config.label_tokens)
    pairs: Sequence[str | None] = labelled.pairs or [None] * len(labelled.texts)
    tune(
        prompt,
        generator,
        [
            generator.framing.encode(text, pair)[: generator.max_tokens]
            for text, pair in zip(labelled.texts, pairs, strict=True)
        ],
        [list(words).index(label) for label in labelled.labels],
        config,
        seed=seed,
        report=lambda *_: None,
    )
    return prompt


def _labelled(task: PreparedTask, items: Items, new: Sequence[NewItem]) -> _Labelled:
    """The run's labelled rows, what people added since, and the new items; each text once, the newest label."""
    train = task.examples("train")
    pairs: Sequence[str | None] = train.pairs or [None] * len(train)
    rows = list(zip(train.texts, pairs, train.labels or [], strict=True))
    for text, pair, label, origin in zip(
        items.texts, items.pairs, items.labels, items.origins, strict=True
    ):
        if origin == "manual" and label is not None:
            rows.append((text, pair, label))
    rows += [(item.text, item.pair, _label_of(item)) for item in new]
    keys = item_keys([row[0] for row in rows], [row[1] for row in rows])
    last = list(dict(zip(keys, rows, strict=True)).values())
    return _Labelled(
        [text for text, _, _ in last],
        [pair or "" for _, pair, _ in last] if task.pair else None,
        [label for _, _, label in last],
    )


def _known(knowledge: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Texts (pairs joined) of a finished knowledge stage, and the labeller's embeddings of them."""
    table = pq.read_table(knowledge / "knowledge.parquet", columns=["text", "text_pair"])
    pairs = table["text_pair"].to_pylist()
    texts = joined(table["text"].to_pylist(), pairs if any(pairs) else None)
    return texts, np.load(knowledge / EMBEDDINGS).astype(np.float32)


def _label_of(item: NewItem) -> str:
    if item.label is None:
        raise InvalidData(
            f"{item.shown} has no label, and samples are written for labels.",
            hint="Give it a label, or leave --samples out.",
        )
    return item.label


def _words(task: PreparedTask, label: str) -> str:
    return task.label_texts.get(label) or label_words(label)


def _plural(word: str, of: Sequence[str]) -> str:
    return word if len(of) == 1 else f"{word}s"
