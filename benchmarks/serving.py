"""The running service against its floors and its peers.

    python benchmarks/serving.py runs/helpdesk
    python benchmarks/serving.py runs/helpdesk --items 20000 --store-service --peers DIR --json serving.json

Everything runs interleaved, round after round on the same cores; what is not measured is stopped (SIGSTOP), and the
median counts:

- *loop*: the predictor in this process, one text a call, one ONNX thread;
- *batched*: the same with 32 texts a call;
- *server*: `python -m services.student` as shipped (metrics, request ids, access log), one worker, loaded by a
  client in a process of its own, over 1, 16 and 64 connections;
- *server at 70 %*: requests that come at random instants, at 70 % of the rate that the same round saw over the most
  connections;
- *two processes*, with `--store-service`: the same, its store in `python -m services.store`;
- *echo*: the least that FastAPI and uvicorn cost for the same bodies: a route that sends them back;
- *peers*, with `--peers DIR`: the same predictor in LitServe, BentoML and MLServer, each with its own dynamic batching,
  and the labeller that taught the student behind a FastAPI route, over the most connections. `servers/peers.py` tells
  how DIR is made.

With `--items` the store is made that size: `servers/sized_task.py` tells how.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from peers.same_predictor import open_predictor
from servers.measures import (
    CALM,
    Figures,
    Rounds,
    in_rounds,
    load,
    loaded,
    loop,
    medians,
    print_table,
)
from servers.ours import echo, store_service, student
from servers.peers import LABELLER, PEERS, Peer, ask, serving
from servers.processes import Server
from servers.sample_texts import inputs_of, sample_texts, write_bodies
from servers.sized_task import live_release, sized_task

from services.student.predictor import Predictor, TextInput

SHARE = 0.7
"""Of the peak rate, at which the tail of the latencies is looked at."""


def main() -> None:
    given = arguments()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        texts = sample_texts(live_release(given.task_dir))
        task_dir = given.task_dir
        if given.items:
            task_dir = sized_task(given.task_dir, folder, given.items)
        predictor = open_predictor(task_dir)
        stack.callback(predictor.close)
        measures = in_process(predictor, texts, given.seconds)
        most = max(given.connections)
        bodies = write_bodies(
            folder / "bodies.jsonl", [{"inputs": inputs_of(text)} for text in texts]
        )

        def through(
            name: str, server: Server, counts: Sequence[int], path: str, bodies: Path
        ) -> None:
            server.stop()
            for count in counts:
                measures[f"{name} {count}"] = partial(
                    loaded, server, path, bodies, count, given.seconds
                )

        served = stack.enter_context(student(task_dir))
        through("server", served, given.connections, "/predict", bodies)
        measures[f"server at {SHARE:.0%}"] = partial(
            at_share, served, bodies, f"server {most}", most, given.seconds
        )
        through("echo", stack.enter_context(echo()), given.connections, "/predict", bodies)
        if given.store_service:
            store = stack.enter_context(store_service(task_dir / "store"))
            apart = stack.enter_context(student(task_dir, store))
            store.stop()
            through("two processes", apart, given.connections, "/predict", bodies)
        if given.peers:
            for peer in given.only or [*PEERS, LABELLER]:
                of = given.task_dir if peer is LABELLER else task_dir
                running = stack.enter_context(serving(peer, given.peers, folder, of))
                if peer is not LABELLER:
                    check_same(peer, running, predictor, texts[:20])
                asked = write_bodies(
                    folder / f"{peer.name}.jsonl", [peer.body(text.text) for text in texts]
                )
                through(peer.name, running, [most], peer.path, asked)
        figures = in_rounds(measures, given.rounds)
    middle = medians(figures)
    print_table(middle)
    print(f"store: {predictor.manifest.items} items; {given.rounds} rounds of {given.seconds} s")
    for line in ratios(middle, most):
        print(line)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task_dir", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--items", type=int, help="make the store that size")
    parser.add_argument("--store-service", action="store_true", help="measure two processes too")
    parser.add_argument("--peers", type=Path, help="directory of the peers' environments")
    names = {peer.name: peer for peer in (*PEERS, LABELLER)}
    parser.add_argument("--only", nargs="+", choices=names, help="these peers alone")
    parser.add_argument("--json", type=Path, help="write all figures there")
    given = parser.parse_args()
    given.only = [names[name] for name in given.only or []]
    return given


def in_process(
    predictor: Predictor, texts: list[TextInput], seconds: float
) -> dict[str, Callable[[Rounds], Figures]]:
    return {
        "loop": lambda _: loop(predictor, texts, 1, seconds),
        "batched": lambda _: loop(predictor, texts, 32, seconds),
    }


def at_share(
    server: Server, bodies: Path, of: str, connections: int, seconds: float, rounds: Rounds
) -> Figures:
    rate = SHARE * rounds[of][-1]["rate"]
    with server.awake():
        load(server.url + "/predict", bodies, connections, CALM)
        return load(server.url + "/predict", bodies, connections, seconds, rate)


def check_same(peer: Peer, server: Server, predictor: Predictor, texts: list[TextInput]) -> None:
    """A peer must answer what the predictor answers."""
    for text in texts:
        found = peer.scores(ask(server.url + peer.path, peer.body(text.text)))
        probabilities = predictor.predict([text]).probabilities[0].tolist()
        for label, expected in zip(predictor.labels, probabilities, strict=True):
            if abs(found[label] - expected) > 1e-3:
                raise SystemExit(f"{peer.name} answers {text.text!r} otherwise: {found}")


def ratios(middle: dict[str, Figures], most: int) -> list[str]:
    """What the figures come to."""
    peak = middle[f"server {most}"]["rate"]
    tail = middle[f"server at {SHARE:.0%}"]
    lines = [
        f"server over {most} connections: {peak / middle['batched']['rate']:.2f} of batched, "
        f"{peak / middle['loop']['rate']:.2f} of the loop",
        f"at {SHARE:.0%} of that: p99 is {tail['p99_ms'] / tail['p50_ms']:.1f} x p50",
    ]
    if "server 1" in middle:
        floor = middle["loop"]["p50_ms"] + middle["echo 1"]["p50_ms"]
        share = middle["server 1"]["p50_ms"] / floor
        lines.append(f"one connection: p50 is {share:.2f} x (loop + echo)")
    names = ["two processes", *(peer.name for peer in (*PEERS, LABELLER))]
    lines += [
        f"against {name}: {peak / middle[f'{name} {most}']['rate']:.2f}"
        for name in names
        if f"{name} {most}" in middle
    ]
    return lines


if __name__ == "__main__":
    main()
