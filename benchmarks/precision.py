"""A release's student in int8 beside the same one in fp32: time, and what rounding changes.

    python benchmarks/precision.py runs/helpdesk [--against ANOTHER/bundle]

The release's own network, rounded as `student.precision: int8` rounds it, on texts of its knowledge. Both run one after
the other in one process on one thread, in many rounds; times are the thread's own, without tokenizing, and ratios are
medians over the rounds. `--against` names the bundle of another student of the same tokenizer, to be timed beside them.
"""

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from servers.sized_task import live_release

from offline.student.build import round_student
from services.releases.manifest import BUNDLE, KNOWLEDGE
from services.store.knowledge_file import read_knowledge
from services.student.bundle import StudentBundle, load_bundle
from services.student.encoder import OnnxEncoder, Tokens

BATCH = 32
BATCHES = 32
SINGLES = 256
FLOOR = "fp32"


class Times(NamedTuple):
    """Milliseconds of a run: a batch of 32 texts, a text alone."""

    batch: float
    single: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task_dir", type=Path)
    parser.add_argument("--against", type=Path, help="another student's bundle")
    parser.add_argument("--rounds", type=int, default=21)
    given = parser.parse_args()
    release = live_release(given.task_dir)
    bundle = load_bundle(release / BUNDLE)
    if bundle.manifest.trained_with.get("precision", FLOOR) != FLOOR:
        raise SystemExit(f"The live release of {given.task_dir} is not in fp32.")
    knowledge = read_knowledge(release / KNOWLEDGE)
    texts = knowledge.table["text"].to_pylist()
    pairs = knowledge.table["text_pair"].to_pylist() if knowledge.metadata.pair else None
    with tempfile.TemporaryDirectory() as directory:
        rounded = Path(directory) / "int8"
        shutil.copytree(bundle.directory, rounded)
        exact = OnnxEncoder.of_bundle(bundle)
        tokens = exact.tokenize(texts, pairs)
        told = round_student(rounded / "model.onnx", [item.ids for item in tokens], seed=0)
        students = {FLOOR: exact, "int8": encoder_of(bundle, rounded)}
        if given.against is not None:
            students["the other"] = OnnxEncoder.of_bundle(load_bundle(given.against))
        report(students, measured(students, tokens, given.rounds))
    print(
        f"\nint8 beside fp32 on {told.texts} items: the same label for {told.same_label:.1%}, scores within "
        f"{told.logits:.2g}, cosines of query vectors above {told.cosine:.4f}."
    )


def encoder_of(bundle: StudentBundle, directory: Path) -> OnnxEncoder:
    """The encoder in a directory, with a bundle's sizes."""
    return OnnxEncoder(
        directory / "model.onnx",
        directory / "tokenizer.json",
        max_tokens=bundle.manifest.max_tokens,
        pair=bundle.manifest.pair,
    )


def measured(
    students: dict[str, OnnxEncoder], tokens: list[Tokens], rounds: int
) -> dict[str, list[Times]]:
    """The times of each student, a round after the other."""
    chosen = random.Random(0)
    batches = [chosen.choices(tokens, k=BATCH) for _ in range(BATCHES)]
    singles = [[item] for item in chosen.choices(tokens, k=SINGLES)]
    times: dict[str, list[Times]] = {name: [] for name in students}
    for number in range(rounds + 1):
        for name, student in students.items():
            found = Times(spent(student, batches), spent(student, singles))
            if number:  # the first warms up
                times[name].append(found)
    return times


def spent(student: OnnxEncoder, batches: list[list[Tokens]]) -> float:
    """Milliseconds of this thread a batch."""
    start = time.thread_time()
    for batch in batches:
        student.run(batch)
    return 1e3 * (time.thread_time() - start) / len(batches)


def report(students: dict[str, OnnxEncoder], times: dict[str, list[Times]]) -> None:
    floor = np.array(times[FLOOR])
    print("| student | 32 texts, ms | of fp32 | one text, ms | of fp32 |")
    print("| --- | --- | --- | --- | --- |")
    for name in students:
        found = np.array(times[name])
        (batch, single), (batch_ratio, single_ratio) = (
            np.median(found, axis=0),
            np.median(found / floor, axis=0),
        )
        print(f"| {name} | {batch:.2f} | {batch_ratio:.2f} | {single:.3f} | {single_ratio:.2f} |")


if __name__ == "__main__":
    main()
