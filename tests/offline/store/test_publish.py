"""A candidate becomes the live release once, is left alone the second time, and is held back when it is worse."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from offline.store.config import StoreConfig
from offline.store.gate import ReleaseConfig
from offline.store.publish import Published, publish
from offline.tasks.prepared import Examples
from services.platform.errors import CorruptArtifact
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import read_release_manifest, write_release_manifest

sys.path.insert(0, str(Path(__file__).parents[2] / "services" / "student"))

from tiny_release import LABELS, sentences, write_release


def held_out() -> Examples:
    rows = sentences(30, seed=9)
    return Examples([text for text, _ in rows], None, [LABELS[label] for _, label in rows])


def candidate(tmp_path: Path, seed: int) -> Path:
    directory = tmp_path / f"candidate-{seed}"
    directory.mkdir(parents=True)
    write_release(directory, seed=seed)
    return directory


def offer(
    directory: Path, tmp_path: Path, rows: Examples, activate: bool = True, drop: float = 0.05
) -> Published:
    release = ReleaseConfig(
        activate=activate,
        accuracy_drop=drop,
        label_drop=max(drop, 0.34),
        agreement=0.1 if drop < 1 else 0.0,
    )
    return publish(directory, {"accuracy": 0.5}, rows, tmp_path / "task", StoreConfig(), release)


def test_the_first_release_goes_live_and_the_same_again_changes_nothing(tmp_path: Path) -> None:
    first = candidate(tmp_path, 0)
    published = offer(first, tmp_path, held_out())
    assert published.outcome == "activated"
    releases = ReleaseDirectory(tmp_path / "task" / "releases")
    live = releases.live()
    assert live is not None
    assert live.release == published.release
    assert releases.get(live.release).metrics == {"accuracy": 0.5, "recall": 1.0}
    assert offer(first, tmp_path, held_out()).outcome == "unchanged"
    assert releases.live() == live


def test_an_equal_release_takes_its_place_and_can_be_rolled_back(tmp_path: Path) -> None:
    first = offer(candidate(tmp_path, 0), tmp_path, held_out())
    second = offer(candidate(tmp_path, 1), tmp_path, held_out())
    assert second.outcome == "activated"
    releases = ReleaseDirectory(tmp_path / "task" / "releases")
    shadow = releases.get(second.release).metrics["shadow"]
    assert (shadow["live"], shadow["rows"]) == (first.release, 30)
    assert 0 < shadow["agreement"] <= 1
    assert shadow["accuracy"] >= shadow["live_accuracy"] - 0.05
    assert shadow["milliseconds"] > 0
    assert shadow["live_milliseconds"] > 0
    assert releases.rollback().release == first.release


def test_a_repeated_run_does_not_undo_a_rollback(tmp_path: Path) -> None:
    first, second = candidate(tmp_path, 0), candidate(tmp_path, 1)
    kept = offer(first, tmp_path, held_out())
    offer(second, tmp_path, held_out())
    releases = ReleaseDirectory(tmp_path / "task" / "releases")
    releases.rollback()
    again = offer(second, tmp_path, held_out())
    assert again.outcome == "rolled_back"
    assert "release activate" in again.reasons[0]
    live = releases.live()
    assert live is not None
    assert live.release == kept.release


def test_a_run_that_comes_back_to_an_older_release_makes_it_live(tmp_path: Path) -> None:
    first, second = candidate(tmp_path, 0), candidate(tmp_path, 1)
    offer(first, tmp_path, held_out())
    offer(second, tmp_path, held_out())
    assert offer(first, tmp_path, held_out()).outcome == "activated"


def test_a_worse_release_is_kept_but_not_activated_and_says_why(tmp_path: Path) -> None:
    live = offer(candidate(tmp_path, 0), tmp_path, held_out())
    worse = offer(misled(candidate(tmp_path, 1)), tmp_path, held_out())
    assert worse.outcome == "refused"
    assert "accuracy on 30 held-out rows fell" in worse.reasons[0]
    releases = ReleaseDirectory(tmp_path / "task" / "releases")
    pointer = releases.live()
    assert pointer is not None
    assert pointer.release == live.release
    assert releases.get(worse.release).gate == worse.reasons


@pytest.mark.parametrize(
    ("threshold", "reason"),
    [
        ({"agreement": 1.1}, "it agrees with the live release on"),
        ({"slowdown": 0.01, "slow_milliseconds": 0.0}, "a text takes it"),
        ({"recall": 1.1}, "approximate search finds 1.000 of the exact nearest items of v-"),
    ],
)
def test_each_threshold_of_the_gate_can_refuse_and_says_so_in_the_manifest(
    tmp_path: Path, threshold: dict[str, float], reason: str
) -> None:
    # Nothing reaches these: what is tried is that each of them is asked.
    strict = ReleaseConfig.model_construct(
        **{**ReleaseConfig(accuracy_drop=1.0, label_drop=1.0).model_dump(), **threshold}
    )
    task = tmp_path / "task"
    first = publish(candidate(tmp_path, 0), {}, held_out(), task, StoreConfig(), strict)
    assert first.outcome == "activated"
    second = publish(candidate(tmp_path, 1), {}, held_out(), task, StoreConfig(), strict)
    assert second.outcome == "refused"
    assert len(second.reasons) == 1
    assert second.reasons[0].startswith(reason)
    refused = ReleaseDirectory(task / "releases").get(second.release)
    assert refused.gate == second.reasons
    assert refused.metrics["shadow"]["live"] == first.release


def test_what_is_forced_goes_live_whatever_the_gate_has_against_its_recall(tmp_path: Path) -> None:
    offer(candidate(tmp_path, 0), tmp_path, held_out())
    strict = ReleaseConfig.model_construct(**{**ReleaseConfig().model_dump(), "recall": 1.1})
    task = tmp_path / "task"
    made = publish(
        candidate(tmp_path, 1), {}, held_out(), task, StoreConfig(), strict, judged=(), force=True
    )
    assert (made.outcome, made.reasons) == ("activated", ())
    assert made.overridden[0].startswith("approximate search finds")
    assert ReleaseDirectory(task / "releases").get(made.release).gate == ()


def test_what_was_made_from_a_release_does_not_undo_a_rollback_in_the_meantime(
    tmp_path: Path,
) -> None:
    first = offer(candidate(tmp_path, 0), tmp_path, held_out())
    second = offer(candidate(tmp_path, 1), tmp_path, held_out())
    releases = ReleaseDirectory(tmp_path / "task" / "releases")
    releases.rollback()
    made = publish(
        candidate(tmp_path, 2), {}, held_out(), tmp_path / "task", StoreConfig(), ReleaseConfig(),
        judged=(), base=second.release,
    )  # fmt: skip
    assert made.outcome == "overtaken"
    assert first.release in made.reasons[0]
    # Nor does one that comes between the last look and the pointer.
    assert releases.activate(second.release, instead_of=second.release).release == first.release
    live = releases.live()
    assert live is not None
    assert live.release == first.release


def test_a_refused_release_that_passes_a_wider_gate_keeps_no_reason_of_its_first_try(
    tmp_path: Path,
) -> None:
    offer(candidate(tmp_path, 0), tmp_path, held_out())
    worse = misled(candidate(tmp_path, 1))
    refused = offer(worse, tmp_path, held_out())
    releases = ReleaseDirectory(tmp_path / "task" / "releases")
    assert releases.get(refused.release).gate == refused.reasons != ()
    assert offer(worse, tmp_path, held_out(), drop=1.0).outcome == "activated"
    assert releases.get(refused.release).gate == ()


def test_a_damaged_live_release_does_not_keep_a_good_one_from_going_live(tmp_path: Path) -> None:
    live = offer(candidate(tmp_path, 0), tmp_path, held_out())
    root = tmp_path / "task" / "releases"
    (root / live.release / "soft_labels.npy").write_bytes(b"gone")
    assert offer(candidate(tmp_path, 1), tmp_path, held_out()).outcome == "activated"
    (root / "live.json").write_text("{")
    assert offer(candidate(tmp_path, 2), tmp_path, held_out()).outcome == "activated"


def misled(directory: Path) -> Path:
    """The release with every soft label turned to the next label, and a mixing that trusts nothing else."""
    bundle = directory / "bundle" / "bundle.json"
    manifest = json.loads(bundle.read_text())
    manifest["mixing"]["gate_bias"] = 20.0
    bundle.write_text(json.dumps(manifest))
    soft_labels = np.load(directory / "soft_labels.npy")
    np.save(directory / "soft_labels.npy", np.roll(soft_labels, 1, axis=1))
    told = read_release_manifest(directory)
    write_release_manifest(
        directory,
        task=told.task,
        labels=told.labels,
        store_version=told.store_version,
        encoder_fingerprint=told.encoder_fingerprint,
        items=told.items,
        metrics={},
    )
    return directory


def test_a_release_is_only_added_where_the_configuration_says_so(tmp_path: Path) -> None:
    published = offer(candidate(tmp_path, 0), tmp_path, held_out(), activate=False)
    assert published.outcome == "added"
    assert ReleaseDirectory(tmp_path / "task" / "releases").live() is None


def test_a_damaged_candidate_is_refused_and_nothing_goes_live(tmp_path: Path) -> None:
    damaged = candidate(tmp_path, 0)
    (damaged / "knowledge.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(CorruptArtifact):
        offer(damaged, tmp_path, held_out())
    assert ReleaseDirectory(tmp_path / "task" / "releases").live() is None
