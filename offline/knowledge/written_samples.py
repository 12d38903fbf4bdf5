"""Samples for labels that come with an edit, new or not: written by the run's frozen generator, sieved by a labeller.

Nothing of the release is trained for it. The soft prompt starts from the labels' names and is tuned on their
labelled texts alone; the labeller is fitted anew on all labelled texts, as the run's was, so that it knows new
labels. How each is done is what the run's own stages say.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from offline.knowledge.additions import NewItem
from offline.knowledge.items import Items, labelled_by_persons
from offline.knowledge.journal import item_keys, loose_forms
from offline.knowledge.sample_sieve import Sieve, WrittenSamples
from offline.knowledge.sources import Sources, forget_labellers
from offline.pipeline.progress import ProgressDisplay, step
from offline.pipeline.stage import Report
from offline.store.knowledge import EMBEDDINGS, KnowledgeConfig
from offline.tasks.label_words import label_words
from offline.tasks.normal_form import letters_and_digits
from offline.tasks.prepared import Examples, PreparedTask
from offline.teacher.encoder import load_encoder
from offline.teacher.generation import GenerateConfig, gathered, shards, write_shard
from offline.teacher.generator import SHARED_TOKENS, Generator, load_generator
from offline.teacher.labeller import Labeller, LabellerConfig
from offline.teacher.labeller_fit import fit_labeller
from offline.teacher.soft_labels import joined
from offline.teacher.soft_prompt import SoftPrompt, SoftPromptConfig, name_prompt, tune
from offline.teacher.text_scorer import LabelledRows
from services.platform.errors import InvalidData

NEEDED = ("prepare", "labeller", "soft_prompt", "generator", "generate", "knowledge")
"""Stages of the run that made the live release whose results are read."""


@dataclass(frozen=True, slots=True)
class _Texts:
    """n texts, with the labels that people gave them where they have any; `pairs` None for single texts."""

    texts: list[str]
    pairs: list[str] | None
    labels: list[str]

    def with_labels(self, labels: Sequence[str]) -> "_Texts":
        rows = [row for row, label in enumerate(self.labels) if label in labels]
        return _Texts(
            [self.texts[row] for row in rows],
            None if self.pairs is None else [self.pairs[row] for row in rows],
            [self.labels[row] for row in rows],
        )

    @property
    def forms(self) -> list[str]:
        pairs: Sequence[str | None] = self.pairs or [None] * len(self.texts)
        return [
            letters_and_digits(text, pair) for text, pair in zip(self.texts, pairs, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Run:
    """What the run left that is read here: its task and rows, and its knowledge with the labeller's embeddings."""

    task: PreparedTask
    train: Examples
    unlabelled: Examples
    knowledge: pa.Table
    embeddings: NDArray[np.float16]


def written_samples(
    items: Items,
    new: Sequence[NewItem],
    sources: Sources,
    count: int,
    *,
    seed: int,
    display: ProgressDisplay,
) -> WrittenSamples:
    """Write samples for every label of the new items.

    Kept are complete ones that pass the run's quality filters, that the labeller takes for the label they were
    written for, and that are neither knowledge nor rows of the validation or the test split.

    Args:
        items: of the live release.
        new: what a person adds, with labels.
        sources: that the release came from.
        count: samples that are written for each label; fewer are kept.
        seed: of the samples, the folds of the labeller and the tuning.
        display: is told of the steps.

    Raises:
        InvalidData: an item has no label, a label has too few texts, or a result of the run is not here.
    """
    wanted = list(dict.fromkeys(_label_of(item) for item in new))
    run = _run(sources)
    settings = LabellerConfig.model_validate(sources.stages["labeller"].config)
    labelled, left_out = _enough(_labelled(run, items, new), run, wanted, settings.folds)
    words = {label: _words(run.task, label) for label in dict.fromkeys(labelled.labels)}
    # The generator needs the memory that the run's own labeller took.
    forget_labellers()
    with step(display, "labeller") as report:
        labeller, embeddings = _labeller(labelled, words, settings, seed, report)
    with step(display, "soft_prompt") as report:
        generator = load_generator(sources.stages["generator"].directory)
        tuning = SoftPromptConfig.model_validate(sources.stages["soft_prompt"].config)
        prompt = _prompt(
            generator,
            {label: words[label] for label in wanted},
            labelled.with_labels(wanted),
            tuning,
            seed,
            report,
        )
    generate = GenerateConfig.model_validate(sources.stages["generate"].config)
    generate = generate.model_copy(update={"samples": count * len(wanted)})
    with step(display, "generate") as report:
        tables, asked = [], 0
        for shard in shards(generate, len(wanted), seed):
            tables.append(write_shard(shard, generator, prompt.fixed(), wanted))
            asked += len(shard.labels)
            report(asked, generate.samples, {})
        written, unfit = gathered(tables)
    quality = KnowledgeConfig.model_validate(sources.stages["knowledge"].config).quality
    # What is taken for another label tells nothing of this one; and however unevenly they pass, all may stay.
    quality = quality.model_copy(update={"other_label": "drop", "balance": float(len(words))})
    with step(display, "sieve"):
        known, known_embeddings = _known(run, items, labelled, embeddings, labeller)
        sieve = Sieve(
            labeller=labeller,
            words=tuple(words.values()),
            texts=known,
            embeddings=known_embeddings,
            keys=frozenset(items.keys),
            held_out=_held_out(sources),
            quality=quality,
        )
        found = sieve(written, unfit, wanted, generator.identity, pair=run.task.pair)
    return WrittenSamples(found.items, found.figures, (*left_out, *found.warnings))


def _run(sources: Sources) -> _Run:
    missing = [stage for stage in NEEDED if stage not in sources.stages]
    if missing:
        raise InvalidData(
            f"No samples can be written: what the run that made the live release left is not all here, its "
            f"{'stage' if len(missing) == 1 else 'stages'} {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} "
            "missing.",
            hint="Edit where the run was made and its stages are kept, or leave --samples out.",
        )
    try:
        task = PreparedTask.load(sources.stages["prepare"].directory)
        knowledge = sources.stages["knowledge"].directory
        return _Run(
            task,
            task.examples("train"),
            task.examples("unlabelled"),
            pq.read_table(knowledge / "knowledge.parquet", columns=["text", "text_pair"]),
            np.load(knowledge / EMBEDDINGS),
        )
    except FileNotFoundError as error:
        raise InvalidData(
            f"No samples can be written: a file that the run left is not here any more ({error}).",
            hint="A purge deletes such files; `retrikt run CONFIG` makes them anew. Or leave --samples out.",
        ) from error


def _labelled(run: _Run, items: Items, new: Sequence[NewItem]) -> _Texts:
    """What people labelled: the run's rows, items of the release, the new items; each once, its newest label."""
    pairs: Sequence[str | None] = run.train.pairs or [None] * len(run.train)
    rows = list(zip(run.train.texts, pairs, run.train.labels or [], strict=True))
    by_persons = labelled_by_persons(items.knowledge.table)
    every = zip(items.texts, items.pairs, items.labels, by_persons, strict=True)
    rows += [(text, pair, label) for text, pair, label, told in every if told and label is not None]
    rows += [(item.text, item.pair, _label_of(item)) for item in new]
    keys = item_keys([row[0] for row in rows], [row[1] for row in rows])
    last = list(dict(zip(keys, rows, strict=True)).values())
    return _Texts(
        [text for text, _, _ in last],
        [pair or "" for _, pair, _ in last] if run.task.pair else None,
        [label for _, _, label in last],
    )


def _enough(
    labelled: _Texts, run: _Run, wanted: Sequence[str], folds: int
) -> tuple[_Texts, list[str]]:
    """The texts of labels that have as many as the labeller's folds; what is left out is told.

    A label with fewer would have all labels fitted in fewer folds: a worse labeller, for all of them.
    """
    forms: dict[str, set[str]] = defaultdict(set)
    for label, form in zip(labelled.labels, labelled.forms, strict=True):
        forms[label].add(form)
    least = min([folds, *(len(forms[label]) for label in run.task.labels if label in forms)])
    for label in wanted:
        if len(forms[label]) < least:
            raise InvalidData(
                f"The label {label!r} has {len(forms[label])} distinct text{'' if len(forms[label]) == 1 else 's'}, "
                f"too few to write samples by: the labeller is fitted in {least} folds.",
                hint=f"Give at least {least} of it; ten are a good number.",
            )
    few = [label for label, found in forms.items() if len(found) < least]
    told = [
        f"the label {label!r} has too few texts for the labeller that sieved the samples"
        for label in few
    ]
    return labelled.with_labels([label for label in forms if label not in few]), told


def _labeller(
    labelled: _Texts,
    words: Mapping[str, str],
    settings: LabellerConfig,
    seed: int,
    report: Report,
) -> tuple[Labeller, NDArray[np.float32]]:
    """A labeller of these labels, fitted to these texts, and its embeddings of them."""
    encoder = load_encoder(settings.encoder)
    embeddings = encoder.embed(labelled.texts, labelled.pairs)
    place = {label: position for position, label in enumerate(words)}
    gold = np.array([place[label] for label in labelled.labels])
    rows = LabelledRows(labelled.texts, labelled.pairs, gold, labelled.forms)
    fitted = fit_labeller(
        rows,
        embeddings,
        words,
        encoder,
        settings,
        seed=seed,
        progress=lambda done, total: report(done, total, {}),
    )
    return fitted.labeller, embeddings


def _prompt(
    generator: Generator,
    words: Mapping[str, str],
    labelled: _Texts,
    config: SoftPromptConfig,
    seed: int,
    report: Report,
) -> SoftPrompt:
    """The prompt of these labels: their words, tuned on their texts."""
    names = list(words.values())
    # The generator has room for the run's own names; of a longer one `name_prompt` leaves out the last tokens.
    room = generator.name_width - SHARED_TOKENS
    own = config.label_tokens or min(generator.framing.name_width(names), room)
    prompt = name_prompt(generator, names, SHARED_TOKENS, own)
    tune(
        prompt,
        generator,
        generator.framing.encode_all(labelled.texts, labelled.pairs, generator.max_tokens),
        [list(words).index(label) for label in labelled.labels],
        config,
        seed=seed,
        report=report,
    )
    return prompt


def _known(
    run: _Run,
    items: Items,
    labelled: _Texts,
    embeddings: NDArray[np.float32],
    labeller: Labeller,
) -> tuple[list[str], NDArray[np.float32]]:
    """Texts that samples are held against, pairs joined, and embeddings of them: whatever the generator may have seen,
    and the release's items; those that the run embedded are not embedded again."""
    pairs = run.knowledge["text_pair"].to_pylist() if run.task.pair else None
    texts = joined(run.knowledge["text"].to_pylist(), pairs)
    own = joined(labelled.texts, labelled.pairs)
    there = {*texts, *own}
    rest: dict[tuple[str, str | None], None] = {}
    for found in (run.train, run.unlabelled):
        seconds: Sequence[str | None] = found.pairs or [None] * len(found)
        rest.update(dict.fromkeys(zip(found.texts, seconds, strict=True)))
    rest.update(dict.fromkeys(zip(items.texts, items.pairs, strict=True)))
    fresh = [
        (text, pair)
        for text, pair in rest
        if (text if pair is None else f"{text}\n{pair}") not in there
    ]
    parts = [run.embeddings.astype(np.float32), embeddings]
    seconds_of = [pair or "" for _, pair in fresh] if run.task.pair else None
    firsts = [text for text, _ in fresh]
    if fresh:
        parts.append(labeller.embed(firsts, seconds_of))
    return [*texts, *own, *joined(firsts, seconds_of)], np.concatenate(parts)


def _held_out(sources: Sources) -> frozenset[str]:
    found: set[str] = set()
    for split in ("validation", "test"):
        table = sources.split(split)
        if table is not None:
            found.update(loose_forms(table["text"].to_pylist(), table["text_pair"].to_pylist()))
    return frozenset(found)


def _label_of(item: NewItem) -> str:
    if item.label is None:
        raise InvalidData(
            f"{item.shown} has no label, and samples are written for labels.",
            hint="Give it a label, or leave --samples out.",
        )
    return item.label


def _words(task: PreparedTask, label: str) -> str:
    return task.label_texts.get(label) or label_words(label)
