"""`report.html`: the figures of `report.json` with pictures and samples, in one file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from offline.report import figures
from offline.report.evaluation import OURS, TEACHER
from offline.report.summary import FinishedRun
from offline.report.table import system_rows
from offline.stages.index import CANDIDATE
from offline.teacher.generator import DESCRIPTION
from services.releases.manifest import KNOWLEDGE
from services.store.knowledge_file import Knowledge, read_knowledge

SAMPLES_A_LABEL = 2
COMPARED = {
    "reward": "reward",
    "label_agreement": "agreement, labeller",
    "label_agreement_judge": "agreement, judge",
    "self_bleu": "self-BLEU",
    "distinct": "distinct",
    "copies": "copies, training",
    "copies_unlabelled": "copies, unlabelled",
}
PROMPTS = {
    "name_prefix": "the label's name",
    "tuned_prompt": "the tuned soft prompt",
    "ppo": "the soft prompt after PPO",
}


def write_page(path: Path, report: Mapping[str, Any], run: FinishedRun) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        report: the content of `report.json`.
        run: whose PPO log, store and samples are shown.
    """
    knowledge = read_knowledge(run.path("index", CANDIDATE, KNOWLEDGE))
    labels = knowledge.metadata.labels
    best = [labels[place] for place in knowledge.soft_labels.argmax(1)]
    pictures = {
        "accuracy": figures.accuracy_against_parameters(_accuracies(report)),
        "ppo": figures.ppo_curves(_log(run)),
        "store": figures.store_map(knowledge.vectors, best, labels),
        "stages": figures.stage_times(report["seconds"]),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("offline.report", "."), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        report=report,
        headline=_headline(report),
        rows=system_rows(report),
        pictures=pictures,
        comparison_names=list(COMPARED.values()),
        comparison=_comparison(report),
        generator=run.read("generator", DESCRIPTION)["identity"],
        samples=_samples(knowledge),
        memory=f"{report['peak_memory_bytes'] / 2**30:.2f} GiB",
    )
    path.write_text(page, encoding="utf-8")


def _headline(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    ours, teacher = report["systems"][OURS], report["teacher"]
    return [
        ("accuracy of the student with its store", f"{ours['accuracy']['mean']:.3f}"),
        ("of the teacher's accuracy", f"{ours['accuracy']['mean'] / teacher['accuracy']:.1%}"),
        ("of the teacher's parameters", f"{ours['parameters'] / teacher['parameters']:.1%}"),
        ("knowledge items", f"{report['store_items']:,}"),
        ("student bundle", f"{report['bundle_bytes'] / 1e6:.2f} MB"),
    ]


def _accuracies(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    found = {
        name: {"parameters": system["parameters"], **system["accuracy"]}
        for name, system in report["systems"].items()
    }
    teacher = report["teacher"]
    found[TEACHER] = {
        "parameters": teacher["parameters"],
        "mean": teacher["accuracy"],
        "std": teacher["accuracy_std"],
    }
    return found


def _comparison(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": title,
            "figures": [f"{report['ppo']['prompts'][name][figure]:.3f}" for figure in COMPARED],
        }
        for name, title in PROMPTS.items()
    ]


def _log(run: FinishedRun) -> list[dict[str, Any]]:
    text = run.path("ppo", "log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _samples(knowledge: Knowledge) -> list[dict[str, str]]:
    """A few generated items of each label, drawn with a fixed seed."""
    table = knowledge.table
    generated = np.array(table["origin"].to_pylist()) == "generated"
    written_for = np.array([label or "" for label in table["label"].to_pylist()])
    confidence = knowledge.soft_labels.max(1)
    names: Sequence[str] = knowledge.metadata.labels
    shown: list[dict[str, str]] = []
    for label in names:
        rows = np.flatnonzero(generated & (written_for == label))
        for row in np.random.default_rng(0).permutation(rows)[:SAMPLES_A_LABEL]:
            item = table.slice(int(row), 1).to_pylist()[0]
            shown.append(
                {
                    "label": label,
                    "text": item["text"],
                    "text_pair": item["text_pair"] or "",
                    "confidence": f"{confidence[row]:.2f}",
                }
            )
    return shown
