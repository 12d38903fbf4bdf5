"""How well the distance of a text from the store tells a task's own texts from those of other tasks.

    python benchmarks/out_of_distribution.py runs/helpdesk --own offline/tasks/helpdesk/test.jsonl \\
        --foreign DATA/trec/validation.jsonl DATA/sst2/validation.jsonl

The release answers as it serves, store included. Files are JSON lines with `text` (and `text_pair`, where the task is
about pairs); `--own` are texts of the task that the release has not seen. For each file of other texts: AUROC, the
probability that one of its texts is farther from the store than one of the task's own (0.5 says nothing), and the
share that the release calls `out_of_distribution`; for comparison, the AUROC of one minus the answer's first
probability. Texts that occur in the store are left out.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from offline.store.publish import open_predictor
from offline.tasks.normal_form import letters_and_digits
from services.platform.errors import StoreUnavailable
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import KNOWLEDGE, MANIFEST
from services.store.knowledge_file import read_knowledge
from services.student.predictor import Predictor, TextInput

AT_ONCE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="a task's directory, or a release's")
    parser.add_argument("--own", type=Path, required=True)
    parser.add_argument("--foreign", type=Path, nargs="+", required=True)
    parser.add_argument("--rows", type=int, default=1000, help="at most so many of a file")
    parser.add_argument("--json", type=Path, help="write all figures there")
    arguments = parser.parse_args()
    release = release_of(arguments.directory)
    known = texts_of(release)
    with open_predictor(release) as predictor:
        own = Measured(predictor, arguments.own, known, arguments.rows)
        others = [Measured(predictor, path, known, arguments.rows) for path in arguments.foreign]
        threshold = predictor.bundle.distance_threshold
    figures = {
        "release": predictor.release,
        "distance_threshold": threshold,
        "own": {"file": str(arguments.own), "rows": len(own.distances), "flagged": own.flagged},
        "foreign": [
            {
                "file": str(path),
                "rows": len(found.distances),
                "auroc": auroc(own.distances, found.distances),
                "auroc_of_confidence": auroc(own.doubts, found.doubts),
                "flagged": found.flagged,
            }
            for path, found in zip(arguments.foreign, others, strict=True)
        ],
    }
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


class Measured:
    """The texts of a file as the release sees them.

    Attributes:
        distances: (n,) `neighbour_distance`.
        doubts: (n,) one minus the first probability of each answer.
        flagged: share called out of distribution; None where the bundle has no threshold.
    """

    def __init__(self, predictor: Predictor, path: Path, known: set[str], most: int) -> None:
        inputs = read(path, pair=predictor.pair, known=known, most=most)
        distances, doubts, flags = [], [], []
        for start in range(0, len(inputs), AT_ONCE):
            prediction = predictor.predict(inputs[start : start + AT_ONCE])
            if prediction.distance is None:
                raise StoreUnavailable(f"The store did not answer: {prediction.degraded}.")
            distances.append(prediction.distance)
            doubts.append(1.0 - prediction.probabilities.max(1))
            if prediction.out_of_distribution is not None:
                flags.append(prediction.out_of_distribution)
        self.distances = np.concatenate(distances)
        self.doubts = np.concatenate(doubts)
        self.flagged = round(float(np.concatenate(flags).mean()), 4) if flags else None


def release_of(directory: Path) -> Path:
    """That directory, where it is a release's; else the live release of the task."""
    if (directory / MANIFEST).is_file():
        return directory
    releases = ReleaseDirectory(directory / "releases")
    live = releases.live()
    if live is None:
        raise SystemExit(f"There is no release at {directory}.")
    return releases.path(live.release)


def texts_of(release: Path) -> set[str]:
    """The letters and digits of what its store holds."""
    table = read_knowledge(release / KNOWLEDGE).table
    both = zip(table["text"].to_pylist(), table["text_pair"].to_pylist(), strict=True)
    return {letters_and_digits(text, pair) for text, pair in both}


def read(path: Path, *, pair: bool, known: set[str], most: int) -> list[TextInput]:
    """At most so many texts of a file, drawn with seed 0, none of which is known."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = [TextInput(row["text"], row["text_pair"] if pair else None) for row in rows]
    unseen = [text for text in found if letters_and_digits(text.text, text.pair) not in known]
    random.Random(0).shuffle(unseen)
    return unseen[:most]


def auroc(own: NDArray[np.float32], foreign: NDArray[np.float32]) -> float:
    """Area under the receiver operating characteristic, foreign texts being the positives."""
    positive = np.repeat([False, True], [len(own), len(foreign)])
    return round(float(roc_auc_score(positive, np.concatenate([own, foreign]))), 4)


if __name__ == "__main__":
    main()
