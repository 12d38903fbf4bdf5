"""A task's directory with one tiny release, live, and the stages that it came from, as far as edits read them."""

import shutil
import sys
from pathlib import Path

import pyarrow as pa

from offline.knowledge.additions import NewItem
from offline.knowledge.drafts import Draft, draft_addition, draft_relabelling, draft_removal
from offline.knowledge.editing import EditSettings, edit_knowledge
from offline.knowledge.items import Filter, Items
from offline.knowledge.outcome import Edited
from offline.knowledge.sources import Sources
from offline.pipeline.manifest import MANIFEST, StageManifest, hash_files, hash_json
from offline.store.config import StoreConfig
from offline.store.gate import ReleaseConfig
from offline.store.publish import publish
from offline.tasks.examples import SCHEMA, write_examples
from offline.tasks.prepared import Examples
from services.releases.directory import ReleaseDirectory
from services.releases.manifest import ReleaseManifest

sys.path.insert(0, str(Path(__file__).parents[2] / "services" / "student"))

from tiny_release import LABELS, sentences, write_release

PHONES = tuple(
    f"{first} {second} please"
    for first, second in (
        ("mobile", "handset"),
        ("ringing", "handset"),
        ("smartphone", "sim"),
        ("dialling", "tone"),
        ("voicemail", "greeting"),
        ("roaming", "abroad"),
    )
)
"""Texts of words that the student does not know: near one another, and far from what it knows."""

NOTHING = Filter()
TEST_ROW = "toner jam with the pages"


def build(directory: Path) -> Path:
    """The candidate of a release in `stages/index`, published; rows to measure on in `stages/prepare`."""
    index = directory / "stages" / "index" / "key"
    (index / "candidate").mkdir(parents=True)
    write_release(index / "candidate", lexical=True)
    prepare = directory / "stages" / "prepare" / "key"
    prepare.mkdir(parents=True)
    for split, rows in (("validation", sentences(30, seed=9)), ("test", [(TEST_ROW, 1)])):
        write_examples(
            pa.table(
                {
                    "text": [text for text, _ in rows],
                    "text_pair": pa.nulls(len(rows), pa.string()),
                    "label": [LABELS[label] for _, label in rows],
                },
                SCHEMA,
            ),
            prepare / f"{split}.parquet",
        )
    student = directory / "stages" / "student" / "key"
    student.mkdir(parents=True)
    told = finish(prepare, {})
    finish(index, {"student": finish(student, {"prepare": told, "labeller": "none"})})
    publish(
        index / "candidate", {"accuracy": 0.5}, Examples([], None, []), directory, StoreConfig(),
        ReleaseConfig(),
    )  # fmt: skip
    return directory


def finish(stage: Path, inputs: dict[str, str]) -> str:
    """Write a stage's manifest; its content's hash."""
    files = hash_files(stage)
    manifest = StageManifest(
        stage=stage.parent.name, key=stage.name, seed=0, inputs=inputs, config={}, code="",
        files=files, content=hash_json([stage.parent.name, files]), metrics={}, seconds=0.0,
        peak_memory_bytes=0, created_at="2026-01-01T00:00:00+00:00", versions={},
    )  # fmt: skip
    (stage / MANIFEST).write_text(manifest.model_dump_json())
    return manifest.content


def candidate(task: Path) -> Path:
    return task / "stages" / "index" / "key" / "candidate"


def live(task: Path) -> ReleaseManifest:
    releases = ReleaseDirectory(task / "releases")
    pointer = releases.live()
    assert pointer is not None
    return releases.get(pointer.release)


def state(task: Path) -> dict[str, bytes]:
    """Every file below a directory but locks, and what is in it."""
    paths = sorted(path for path in task.rglob("*") if path.is_file())
    return {
        str(path.relative_to(task)): path.read_bytes()
        for path in paths
        if path.name not in (".lock", ".rebuild.lock")
    }


def copy(task: Path, directory: Path) -> Path:
    shutil.copytree(task, directory)
    return directory


def add(
    task: Path,
    *rows: tuple[str, str | None],
    new_labels: bool = True,
    dry_run: bool = False,
    release: ReleaseConfig | None = None,
) -> Edited:
    new = [NewItem(f"row {n}", text, None, label) for n, (text, label) in enumerate(rows, start=1)]

    def draft(items: Items, sources: Sources) -> Draft:
        return draft_addition(
            items, new, sources, new_labels=new_labels, skip_duplicates=False, ask_labeller=False
        )

    settings = EditSettings(release=release or ReleaseConfig(), dry_run=dry_run)
    return edit_knowledge(task, draft, settings)


def add_phones(task: Path) -> Edited:
    return add(task, *((text, "phone") for text in PHONES))


def remove(
    task: Path, *ids: int, wanted: Filter = NOTHING, purge: bool = False, of: str | None = None
) -> Edited:
    def draft(items: Items, _: Sources) -> Draft:
        return draft_removal(items, ids, wanted, purge=purge)

    return edit_knowledge(task, draft, EditSettings(), ids_of=of, by_id=bool(ids))


def relabel(task: Path, *ids: int, label: str) -> Edited:
    def draft(items: Items, sources: Sources) -> Draft:
        return draft_relabelling(items, ids, label, sources, new_labels=True, ask_labeller=False)

    return edit_knowledge(task, draft, EditSettings())
