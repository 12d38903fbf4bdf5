"""Edits: the next release holds them, a bad one is refused, a wrong one writes nothing, and runs keep them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from edited_task import (
    PHONES,
    TEST_ROW,
    add,
    add_phones,
    candidate,
    live,
    relabel,
    remove,
    state,
)

from offline.knowledge.additions import read_additions
from offline.knowledge.in_force import edits_in_force, held_out_rows, with_edits
from offline.knowledge.item_table import print_items
from offline.knowledge.items import Filter, Items
from offline.knowledge.journal import JOURNAL, item_keys
from offline.pipeline.chain import run_lock
from offline.store.gate import ReleaseConfig
from offline.store.publish import same_release
from offline.tasks.config import FieldsConfig
from offline.tasks.examples import SCHEMA, read_examples, write_examples
from services.platform.errors import (
    AlreadyRunning,
    InvalidConfig,
    InvalidData,
    InvalidInput,
    NotFound,
    ReleasePurged,
)
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import (
    EDITED,
    KNOWLEDGE,
    LEXICAL,
    read_release_manifest,
)
from services.store.backends.edge import EdgeBackend
from services.store.snapshots import SnapshotDirectory

KNOWN = "locked account please help"


def test_a_label_or_origin_that_the_release_has_not_is_refused_with_the_nearest(task: Path) -> None:
    items = Items.of(task)
    assert items.matching(Filter(labels=["login"], origins=["manual"])) == []
    with pytest.raises(NotFound, match=r"the label 'logn'.*Did you mean 'login'.*network"):
        items.matching(Filter(labels=["login", "logn"]))
    with pytest.raises(NotFound, match=r"the origin 'manually'.*Did you mean 'manual'"):
        items.matching(Filter(origins=["manually"]))


def test_the_table_of_items_tells_what_the_labeller_takes_each_for(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = Items.of(task)
    print_items(items, [0], 1)
    label, probability = next(iter(items.described(0)["soft_label"].items()))
    told = capsys.readouterr().out
    assert f"{label} {probability:.2f}" in told
    assert f"1 of 1 items that fit, of {len(items)}" in told


def test_a_new_label_comes_after_the_student_s_and_is_recognised(task: Path) -> None:
    before = Items.of(task)
    made = add_phones(task)
    assert made.outcome == "activated", made.reasons
    assert made.new_labels == ("phone",)
    assert made.left_out == {"phone": {"rows": len(PHONES), "recall": 1.0}}
    assert made.held_out == {"rows": 30, "accuracy": 1.0, "live_accuracy": 1.0}
    release, items = live(task), Items.of(task)
    assert release.labels == (*before.release.labels, "phone")
    assert (release.release, release.store_version) == (made.release, made.store_version)
    assert release.edits == (made.edit,)
    assert items.texts == [*before.texts, *PHONES]
    assert [items.texts[row] for row in made.added] == list(PHONES)
    assert items.origins[60:] == ["manual"] * len(PHONES)
    np.testing.assert_array_equal(
        items.knowledge.soft_labels[:60, :3], before.knowledge.soft_labels
    )
    assert (items.knowledge.soft_labels[60:].argmax(1) == 3).all()


def test_a_later_run_that_makes_the_same_knowledge_makes_the_edited_release(task: Path) -> None:
    add_phones(task)
    relabel(task, 0, label="network")
    remove(task, 5, 61)
    edited = live(task)
    with with_edits(candidate(task), task) as again:
        made = read_release_manifest(again)
    assert made.release == edited.release
    assert made.edits == edited.edits
    assert same_release(made, edited)


def test_going_back_to_a_release_goes_back_to_its_edits(task: Path) -> None:
    add_phones(task)
    ReleaseDirectory(task / "releases").rollback()
    assert edits_in_force(task) == []
    with with_edits(candidate(task), task) as made:
        assert made == candidate(task)


def test_where_the_live_pointer_is_damaged_a_refused_edit_does_not_come_into_force(
    task: Path,
) -> None:
    made = add(task, (KNOWN, "login"))
    login = Items.of(task).matching(Filter(labels=["login"]))
    assert relabel(task, *login, label="phone").outcome == "refused"
    (task / "releases" / "live.json").write_text("{")
    assert [edit.id for edit in edits_in_force(task)] == [made.edit]


def test_where_no_release_can_be_read_the_journal_s_edits_stay_in_force(task: Path) -> None:
    made = add(task, (KNOWN, "login"))
    for manifest in (task / "releases").glob("*/manifest.json"):
        manifest.write_text("{")
    assert [edit.id for edit in edits_in_force(task)] == [made.edit]


@pytest.mark.parametrize(
    ("rows", "new_labels", "said"),
    [
        ([("locked  Account, please help", "login")], False, "is item"),
        ([("a new text", "login"), ("A  new TEXT", "login")], False, "given twice"),
        ([(TEST_ROW.upper(), "printer")], False, "rows of the test split"),
        ([("a new text", "pinter")], False, "Did you mean 'printer'"),
        ([("a new text", "  ")], True, "cannot be used"),
        ([("a new text", "two\nlines")], True, "cannot be used"),
        ([("a new text", None)], True, "has no label"),
    ],
)
def test_what_cannot_be_added_is_told_and_nothing_is_written(
    built: Path, rows: list[tuple[str, str | None]], new_labels: bool, said: str
) -> None:
    items = Items.of(built)
    rows = [(items.texts[0] if text.startswith("locked") else text, label) for text, label in rows]
    before = state(built)
    with pytest.raises(InvalidData, match=said):
        add(built, *rows, new_labels=new_labels)
    assert state(built) == before


def test_an_unknown_id_or_another_release_s_ids_are_refused_and_nothing_is_written(
    built: Path,
) -> None:
    before = state(built)
    with pytest.raises(NotFound, match="no item 60"):
        remove(built, 60)
    with pytest.raises(InvalidInput, match="the live one is"):
        remove(built, 3, of="r-000000000000")
    with pytest.raises(NotFound, match="fits"):
        remove(built, wanted=Filter(contains="zebra"))
    with pytest.raises(InvalidData, match="All 60 items"):
        remove(built, wanted=Filter(origins=["generated"]))
    assert state(built) == before


def test_an_edit_of_a_store_that_has_not_the_live_version_is_refused_and_writes_nothing(
    task: Path,
) -> None:
    (task / "store" / live(task).store_version).rename(task / "elsewhere")
    before = state(task)
    with pytest.raises(InvalidConfig, match="is not in"):
        add(task, (KNOWN, "login"))
    assert state(task) == before


def test_signs_tell_texts_apart_and_case_and_spaces_do_not() -> None:
    for one, other in [("What is C++?", "What is C#?"), ("-5 degrees", "5 degrees"), ("कि", "की")]:
        assert item_keys([one], None) != item_keys([other], None)
    assert item_keys(["Straße  Ａ "], None) == item_keys(["STRASSE a"], None)


def test_a_run_is_not_judged_on_a_row_that_an_edit_made_an_item(task: Path) -> None:
    row = read_examples(task / "stages" / "prepare" / "key" / "validation.parquet").to_pylist()[0]
    add(task, (row["text"], row["label"]))
    with with_edits(candidate(task), task) as made:
        assert row["text"] not in held_out_rows(made, task).texts


def test_a_purge_that_finds_nothing_says_so(task: Path) -> None:
    purged = remove(task, wanted=Filter(keys=item_keys(["never seen"], None)), purge=True)
    assert "no such text was found" in purged.warnings[-1]


def test_a_row_without_text_is_told_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "new.jsonl"
    path.write_text('{"text": "fine", "label": "x"}\n{"text": " "}\n')
    with pytest.raises(InvalidData, match="line 2: the field 'text' is empty"):
        read_additions(path, FieldsConfig())


def test_a_dry_run_tells_and_writes_nothing(built: Path) -> None:
    before = state(built)
    planned = add(built, (PHONES[0], "phone"), dry_run=True)
    assert (planned.outcome, planned.added, planned.new_labels) == ("planned", (60,), ("phone",))
    assert state(built) == before


def test_a_new_label_that_is_not_recognised_is_refused_and_the_live_release_stays(
    task: Path,
) -> None:
    before = live(task).release
    # What they say is, to the student, what its own labels are about.
    texts = ("printer paper", "wifi slow", "login reset", "toner print", "vpn cable", "my password")
    strict = ReleaseConfig(added_recall=1.0)
    made = add(task, *((text, "mixed") for text in texts), release=strict)
    assert (made.outcome, live(task).release, made.live) == ("refused", before, before)
    assert made.exit_status == 9
    assert any("'mixed'" in reason for reason in made.reasons)
    # What a person makes live all the same has its edit in the journal.
    ReleaseDirectory(task / "releases").activate(str(made.release))
    assert [edit.id for edit in edits_in_force(task)] == [made.edit]


def test_labels_that_turn_the_held_out_rows_are_refused(task: Path) -> None:
    login = Items.of(task).matching(Filter(labels=["login"]))
    made = relabel(task, *login, label="phone")
    assert made.outcome == "refused"
    assert "held-out rows fell" in made.reasons[0]


def test_relabelling_honours_the_person_and_taking_a_label_s_items_out_takes_it_away(
    task: Path,
) -> None:
    add_phones(task)
    made = relabel(task, 0, label="phone")
    items = Items.of(task)
    assert (made.relabelled, items.labels[0]) == ((0,), "phone")
    assert items.knowledge.soft_labels[0].argmax() == 3
    made = remove(task, wanted=Filter(labels=["phone"]))
    assert made.gone_labels == ("phone",)
    assert len(made.removed) == len(PHONES) + 1
    assert live(task).labels == ("login", "printer", "network")


def test_an_edit_that_is_undone_comes_back_to_the_release_with_its_figures(task: Path) -> None:
    first = live(task)
    add_phones(task)
    made = remove(task, wanted=Filter(labels=["phone"]))
    assert made.release == first.release
    assert live(task).metrics["accuracy"] == 0.5
    assert len(live(task).edits) == 2


def test_an_edit_that_was_undone_can_be_made_again(task: Path) -> None:
    made = add_phones(task)
    remove(task, wanted=Filter(labels=["phone"]))
    again = add_phones(task)
    assert (again.outcome, again.release) == ("activated", made.release)
    assert live(task).release == made.release


def test_a_purged_text_that_is_added_again_is_refused_before_anything_is_written(
    task: Path,
) -> None:
    made = add(task, (KNOWN, "login"))
    remove(task, wanted=Filter(keys=item_keys([KNOWN], None)), purge=True)
    before = state(task)
    with pytest.raises(InvalidInput, match=f"{made.release} again, which was purged"):
        add(task, (KNOWN, "login"))
    assert state(task) == before
    assert add(task, (KNOWN, "login"), ("another one", "login")).outcome == "activated"


def test_a_text_that_is_not_there_is_told_beside_those_that_are(task: Path) -> None:
    made = add(task, (KNOWN, "login"))
    gone = remove(task, wanted=Filter(keys=item_keys([KNOWN, KNOWN + "!"], None)))
    assert gone.removed == made.added
    assert gone.warnings == ("1 of 2 texts are not in the live release",)


def test_no_edit_is_made_while_a_run_works_in_the_directory(task: Path) -> None:
    with run_lock(task), pytest.raises(AlreadyRunning):
        add_phones(task)


def test_purged_texts_are_nowhere_and_their_releases_cannot_come_back(task: Path) -> None:
    secret = "the secret of Alice"
    first = live(task)
    made = add(task, (secret, "login"))
    assert made.outcome == "activated", made.reasons
    releases = ReleaseDirectory(task / "releases")
    backend, version = EdgeBackend(task / "store"), str(made.store_version)
    snapshots = SnapshotDirectory(task / "snapshots")
    of_it = snapshots.create(backend, version, releases.path(str(made.release)))
    of_first = snapshots.create(backend, first.store_version, releases.path(first.release))
    train = task / "stages" / "prepare" / "key" / "train.parquet"
    write_examples(pa.table([[secret], [None], ["login"]], SCHEMA), train)
    purged = remove(task, wanted=Filter(keys=item_keys([secret.upper()], None)), purge=True)
    assert purged.outcome == "activated", purged.reasons
    assert purged.purged is not None
    assert purged.purged["releases"] == (made.release,)
    assert purged.purged["versions"] == (made.store_version,)
    with pytest.raises(ReleasePurged, match="was purged"):
        releases.rollback()
    with pytest.raises(ReleasePurged):
        releases.activate(str(made.release))
    assert not (task / "releases" / str(made.release) / KNOWLEDGE).exists()
    assert not (task / "releases" / str(made.release) / LEXICAL).exists()
    assert not (task / "store" / str(made.store_version)).exists()
    assert purged.purged["snapshots"] == (of_it.name,)
    assert [snapshot.name for snapshot in snapshots.list()] == [of_first.name]
    assert purged.purged["files"] == ("stages/prepare/key/train.parquet",)
    assert not train.exists()
    assert purged.purged["journal"] == 1
    assert secret not in (task / JOURNAL).read_text()
    # Everything else can, and no later run brings the text back.
    assert releases.activate(first.release).release == first.release
    assert [edit.id for edit in edits_in_force(task)] == [made.edit, purged.edit]
    with releases.writing():
        releases.write_manifest(live(task).model_copy(update={"edits": ()}))
    assert [edit.id for edit in edits_in_force(task)] == [purged.edit]


def test_what_an_edit_says_is_in_the_words_of_its_release_and_what_it_purges_in_none(
    task: Path,
) -> None:
    secret = "the secret of Alice"
    rows = ("Alice has another", "ask Alice", "who is Alice", "call Alice now", "Alice again")
    made = add(task, (secret, "login"), ("Alice has another one", "login"))
    with_label = add(task, *((text, "alice") for text in rows))
    releases = ReleaseDirectory(task / "releases")
    assert b"alice" in (releases.path(str(made.release)) / LEXICAL).read_bytes()
    assert b"alice" in (releases.path(str(with_label.release)) / EDITED).read_bytes()
    gone = item_keys([secret, "Alice has another one", *rows], None)
    purged = remove(task, wanted=Filter(keys=gone), purge=True)
    assert purged.outcome == "activated", purged.reasons
    indexes = [*task.rglob(LEXICAL), *task.rglob(EDITED)]
    assert len(indexes) >= 2
    assert not any(b"alice" in path.read_bytes() for path in indexes)


def test_a_purge_by_text_and_label_takes_no_text_of_another_label(built: Path) -> None:
    items = Items.of(built)
    login = items.matching(Filter(labels=["login"]))[0]
    both = Filter(labels=["printer"], keys=[items.keys[login]])
    before = state(built)
    with pytest.raises(NotFound, match="fits"):
        remove(built, wanted=both, purge=True)
    assert state(built) == before


def test_a_purge_that_was_cut_short_is_finished_by_the_next_edit(task: Path) -> None:
    made = add(task, (KNOWN, "login"))
    remove(task, *made.added)
    journal = task / JOURNAL
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[-1]["purge"] = "asked"
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    # Ids may be others than the person saw before.
    with pytest.raises(InvalidInput, match="finished just now"):
        remove(task, 0)
    assert KNOWN not in journal.read_text()
    with pytest.raises(ReleasePurged):
        ReleaseDirectory(task / "releases").activate(str(made.release))
    assert remove(task, 0).outcome == "activated"


def test_a_text_of_older_releases_alone_is_purged_without_a_new_release(task: Path) -> None:
    made = add(task, (KNOWN, "login"))
    remove(task, *made.added)
    serves = live(task).release
    purged = remove(task, wanted=Filter(keys=item_keys([KNOWN], None)), purge=True)
    assert (purged.outcome, live(task).release) == ("nothing", serves)
    assert purged.purged is not None
    assert purged.purged["releases"] == (made.release,)
    assert purged.exit_status == 0
    assert live(task).edits[-1] == purged.edit
