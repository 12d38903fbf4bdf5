"""How the prediction service's speed changes with the size of the store and the length of the texts.

    python benchmarks/growth.py runs/helpdesk --folder DIR --build     # the stores, which takes its time
    python benchmarks/growth.py runs/helpdesk --folder DIR --out docs/serving-growth

For each size of the store, and each length of texts in a store of `LENGTHS_AT` items: texts a second over 64
connections, and the median of one connection, of `python -m services.student` as shipped, one worker. Interleaved, the
median of the rounds; what is not measured is stopped. `servers/sized_task.py` tells what the items are (made up, beyond
the release's own) and how the student reads texts longer than it was trained for. `--out` names the picture (`.svg`)
and the table (`.md`).
"""

import argparse
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from peers.same_predictor import open_predictor
from servers.measures import Figures, in_rounds, loaded, medians
from servers.ours import student
from servers.sample_texts import inputs_of, sample_texts, write_bodies
from servers.sized_task import live_release, sized_task

from offline.report.figures import OURS_COLOUR, svg
from services.student.predictor import Predictor, TextInput

SIZES = [1_000, 10_000, 100_000, 1_000_000]
LENGTHS = [8, 16, 32, 64, 128, 256]
LENGTHS_AT = 10_000
CONNECTIONS = (64, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task_dir", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="for the stores, which are kept")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--build", action="store_true", help="make the stores and no more")
    parser.add_argument("--out", type=Path, help="picture and table, without their endings")
    given = parser.parse_args()
    long_texts = sized_task(
        given.task_dir, given.folder / "long-texts", LENGTHS_AT, max(given.lengths)
    )
    sized = {size: sized_task(given.task_dir, given.folder, size) for size in given.sizes}
    if given.build:
        return
    texts = sample_texts(live_release(given.task_dir))
    with ExitStack() as stack:
        measures = {}
        bodies = write_bodies(
            given.folder / "bodies.jsonl", [{"inputs": inputs_of(text)} for text in texts]
        )
        for size, task_dir in sized.items():
            running = stack.enter_context(student(task_dir))
            running.stop()
            for count in CONNECTIONS:
                name = f"{size} items, {count}"
                measures[name] = partial(loaded, running, "/predict", bodies, count, given.seconds)
        running = stack.enter_context(student(long_texts))
        running.stop()
        predictor = open_predictor(long_texts)
        for length in given.lengths:
            of_length = texts_of(predictor, texts, length)
            asked = write_bodies(
                given.folder / f"{length}.jsonl",
                [{"inputs": inputs_of(text)} for text in of_length],
            )
            for count in CONNECTIONS:
                name = f"{length} tokens, {count}"
                measures[name] = partial(loaded, running, "/predict", asked, count, given.seconds)
        predictor.close()
        middle = medians(in_rounds(measures, given.rounds))
    if any(figures["failed"] for figures in middle.values()):
        raise SystemExit(f"Some requests failed: {middle}")
    table = written(middle, given.sizes, given.lengths)
    print(table)
    if given.out:
        given.out.with_suffix(".md").write_text(table, encoding="utf-8")
        given.out.with_suffix(".svg").write_text(
            picture(middle, given.sizes, given.lengths), encoding="utf-8"
        )


def texts_of(predictor: Predictor, texts: list[TextInput], length: int) -> list[TextInput]:
    """For each text one that begins as it does, of `length` tokens or, where a word is of several, a few less."""
    words = [word for text in texts for word in text.text.split()]
    found = []
    for number in range(min(400, len(texts))):
        chosen: list[str] = []
        for word in words[number * 7 :]:
            longer = TextInput(" ".join([*chosen, word]))
            (tokens,) = predictor.tokenize([longer])
            if tokens.truncated or len(tokens.ids) > length:
                break
            chosen.append(word)
        found.append(TextInput(" ".join(chosen)))
    return found


def written(middle: dict[str, Figures], sizes: list[int], lengths: list[int]) -> str:
    """Markdown."""
    lines = [
        "| | texts/s over 64 connections | p50 of one connection, ms |",
        "| --- | ---: | ---: |",
    ]
    for name in [*(f"{size} items" for size in sizes), *(f"{length} tokens" for length in lengths)]:
        rate, p50 = middle[f"{name}, 64"]["rate"], middle[f"{name}, 1"]["p50_ms"]
        number, unit = name.split()
        lines.append(f"| {int(number):,} {unit} | {rate:,.0f} | {p50:.2f} |")
    return "\n".join(lines) + "\n"


def picture(middle: dict[str, Figures], sizes: list[int], lengths: list[int]) -> str:
    """SVG text: speed and time against the items of the store, and against the tokens of a text."""
    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    panels = figure.subplots(2, 2, sharey="row")
    for column, (unit, numbers) in enumerate((("items", sizes), ("tokens", lengths))):
        rates = [middle[f"{number} {unit}, 64"]["rate"] for number in numbers]
        times = [middle[f"{number} {unit}, 1"]["p50_ms"] for number in numbers]
        _panel(panels[0, column], numbers, rates)
        _panel(panels[1, column], numbers, times)
        panels[1, column].set_xlabel(f"{unit} of {'the store' if unit == 'items' else 'a text'}")
        if unit == "tokens":
            for panel in panels[:, column]:
                panel.set_xscale("log", base=2)
                panel.set_xticks(numbers, map(str, numbers))
    for row in panels:
        row[0].set_ylim(0, 1.1 * max(axis.dataLim.y1 for axis in row))
    panels[0, 0].set_ylabel("texts/s, 64 connections")
    panels[1, 0].set_ylabel("p50 ms, one connection")
    return svg(figure)


def _panel(axis: Axes, numbers: list[int], values: list[float]) -> None:
    axis.plot(numbers, values, color=OURS_COLOUR, marker="o", markersize=4)
    axis.set_xscale("log")
    axis.grid(alpha=0.3)


if __name__ == "__main__":
    main()
