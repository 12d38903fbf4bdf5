"""Knowledge gaps: read whatever the log went through, grouped by kind, and written so that a rebuild learns of them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from offline import cli
from offline.gaps.grouping import group_gaps
from offline.gaps.reading import Gap, read_gaps
from offline.gaps.report import report_gaps, write_texts
from offline.tasks.config import FieldsConfig
from offline.tasks.examples import read_items, read_split
from services.platform.errors import InvalidConfig, InvalidData

sys.path.insert(0, str(Path(__file__).parents[2] / "services" / "student"))

from tiny_task import TinyTask, build_task


def line(text: str, **more: Any) -> dict[str, Any]:
    return {
        "at": "2026-01-01T00:00:00+00:00",
        "text": text,
        "signs": ["far"],
        "similarity": 0.5,
        "label": "login",
        "score": 0.6,
        "student": "login",
        "store": "login",
        "release": "r-000000000000",
    } | more


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in lines))
    return path


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> TinyTask:
    return build_task(tmp_path_factory.mktemp("gaps") / "tiny")


def test_a_text_counts_once_with_how_often_it_was_asked_through_full_files_and_spellings(
    tmp_path: Path,
) -> None:
    log = write(tmp_path / "gaps.jsonl", line("VPN drops!"), line("new badge", similarity=None))
    write(tmp_path / "gaps.jsonl.1", line("vpn drops", similarity=0.4, signs=["far", "differ"]))
    write(tmp_path / "gaps.jsonl.2", line("Vpn  drops", label="network"))
    (tmp_path / "gaps.jsonl.txt").write_text("somebody's notes\n")
    read = read_gaps([log])
    assert (read.lines, read.skipped) == (4, 0)
    first, second = read.gaps
    assert (first.text, first.asked, first.similarity) == ("Vpn  drops", 3, 0.4)
    assert first.signs == {"far": 3, "differ": 1}
    assert first.labels == {"login": 2, "network": 1}
    assert second.similarity is None


def test_a_torn_line_and_a_text_of_nothing_but_marks_are_left_out(tmp_path: Path) -> None:
    log = write(tmp_path / "gaps.jsonl", line("vpn drops"), line("?!"))
    with log.open("a") as file:
        file.write('{"at": "2026-01-01T00:0')
    read = read_gaps([log])
    assert (read.lines, read.skipped, len(read.gaps)) == (3, 2, 1)


@pytest.mark.parametrize("content", ['{"text": "a task\'s example"}\n', "no JSON\n", "[1]\n"])
def test_a_file_that_is_no_such_log_is_refused(tmp_path: Path, content: str) -> None:
    log = tmp_path / "other.jsonl"
    log.write_text(content)
    with pytest.raises(InvalidData, match="None of the lines"):
        read_gaps([log])
    with pytest.raises(InvalidData, match=r"no log of knowledge gaps at .*away"):
        read_gaps([tmp_path / "away.jsonl"])


def blobs(*sizes: int, seed: int = 0) -> tuple[list[Gap], NDArray[np.float32]]:
    """Texts of kinds that lie around one axis each."""
    rng = np.random.default_rng(seed)
    gaps, rows = [], []
    for kind, size in enumerate(sizes):
        for number in range(size):
            gaps.append(Gap(f"word{'abcdefgh'[kind]} common {number}", None, asked=1))
            rows.append(np.eye(8)[kind] + 0.05 * rng.normal(size=8))
    vectors = np.asarray(rows, np.float32)
    return gaps, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_kinds_that_are_there_are_found_largest_first_and_named_by_what_sets_them_apart() -> None:
    gaps, vectors = blobs(5, 20, 9, 6)
    groups = group_gaps(gaps, vectors)
    assert [len(group.gaps) for group in groups] == [20, 9, 6, 5]
    assert [group.words[0] for group in groups] == ["wordb", "wordc", "wordd", "worda"]
    assert all(group.cohesion > 0.9 for group in groups)


def test_the_same_texts_give_the_same_groups_whatever_their_order() -> None:
    gaps, vectors = blobs(8, 7, 6)
    order = np.random.default_rng(1).permutation(len(gaps))
    shuffled = group_gaps([gaps[n] for n in order], vectors[order])
    assert [{gap.text for gap in group.gaps} for group in shuffled] == [
        {gap.text for gap in group.gaps} for group in group_gaps(gaps, vectors)
    ]


def test_texts_without_kinds_are_cut_into_about_as_many_groups_as_groups_have_texts() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(100, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gaps = [Gap(f"text {number}", None, asked=1) for number in range(len(vectors))]
    assert len(group_gaps(gaps, vectors)) == 10


def test_few_texts_and_a_number_of_groups_that_is_asked_for() -> None:
    gaps, vectors = blobs(4, 4)
    assert group_gaps([], vectors[:0]) == []
    assert len(group_gaps(gaps[:1], vectors[:1])) == 1
    assert len(group_gaps(gaps, vectors, count=4)) == 4
    assert len(group_gaps(gaps[:2], vectors[:2], count=9)) == 2


def test_texts_beyond_what_is_clustered_join_the_nearest_group() -> None:
    gaps, vectors = blobs(9, 5, seed=2)
    more, more_vectors = blobs(3, 2, seed=3)
    together = np.concatenate([vectors, more_vectors])
    groups = group_gaps([*gaps, *more], together, count=2, most_clustered=14)
    assert [len(group.gaps) for group in groups] == [12, 7]


def test_what_the_live_release_knows_by_now_is_no_gap_any_more(
    task: TinyTask, tmp_path: Path
) -> None:
    table = task.releases.path(task.one) / "knowledge.parquet"
    import pyarrow.parquet as pq

    known = pq.read_table(table)["text"][0].as_py()
    log = write(tmp_path / "gaps.jsonl", line(known.upper()), line("badge lost"))
    report = report_gaps([log], task.directory, vectors="student")
    assert (report.texts, report.known, report.release) == (2, 1, task.one)
    assert [gap.text for group in report.groups for gap in group.gaps] == ["badge lost"]


def test_the_student_s_vectors_take_a_live_release(tmp_path: Path) -> None:
    log = write(tmp_path / "gaps.jsonl", line("badge lost"))
    with pytest.raises(InvalidConfig, match="No release is live"):
        report_gaps([log], tmp_path, vectors="student")


def test_the_command_shows_groups_and_writes_texts_that_a_task_reads_as_unlabelled(
    task: TinyTask,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [f"{word} {number} broken" for word in ("printer", "wifi") for number in range(4)]
    log = write(tmp_path / "gaps.jsonl", *(line(text) for text in texts), line(texts[0]))
    out = tmp_path / "texts.jsonl"
    common = [
        "retrikt",
        "gaps",
        str(log),
        "--task-dir",
        str(task.directory),
        "--vectors",
        "student",
    ]
    monkeypatch.setattr(sys, "argv", [*common, "--groups", "2", "--json", "--output", str(out)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    told = json.loads(capsys.readouterr().out)
    assert (told["texts"], told["lines"]) == (8, 9)
    assert [(group["texts"], group["asked"]) for group in told["groups"]] == [(4, 5), (4, 4)]
    assert told["groups"][0]["words"][0] == "printer"
    assert told["groups"][0]["labels"] == {"login": 5}
    table = read_split("texts.jsonl", tmp_path, FieldsConfig(), split="unlabelled", labels=None)
    assert sorted(table["text"].to_pylist()) == sorted(texts)
    added = list(read_items(out, FieldsConfig()))
    assert sorted(text for _, text, *_ in added) == sorted(texts)
    monkeypatch.setattr(
        sys, "argv", [*common, "--groups", "2", "--output", str(out), "--take", "2"]
    )
    with pytest.raises(SystemExit):
        cli.main()
    assert "printer" in capsys.readouterr().out
    written = [json.loads(row) for row in out.read_text().splitlines()]
    assert {row["group"] for row in written} == {2}
    assert all("wifi" in row["text"] for row in written)


def test_texts_are_written_though_nobody_reads_what_is_shown(
    task: TinyTask, tmp_path: Path
) -> None:
    rows = [line(f"printer {number} broken") for number in range(4)]
    log, out = write(tmp_path / "gaps.jsonl", *rows), tmp_path / "texts.jsonl"
    command = [sys.executable, "-m", "offline", "gaps", str(log), "--vectors", "student"]
    with subprocess.Popen(
        [*command, "--task-dir", str(task.directory), "--groups", "1", "--output", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(timeout=240)
    assert len(out.read_text().splitlines()) == 4


def test_a_file_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be written"):
        write_texts(tmp_path / "away" / "texts.jsonl", {})
