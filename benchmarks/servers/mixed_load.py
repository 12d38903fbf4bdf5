"""Requests of every kind, good and bad, at random instants; and what came of them."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from servers.sample_texts import inputs_of
from services.student.predictor import TextInput
from services.student.routes import DEGRADED_HEADER

SHARES = {"single": 60, "batch": 10, "explained": 10, "v2": 10, "bad": 10}
"""Of the requests, in percent."""

BATCH = 8


@dataclass(slots=True)
class Seen:
    """What came of requests.

    Attributes:
        answered: as they should be, by kind.
        degraded: of the good ones, those answered without the store.
        wrong: what was wrong with each of the others, in words.
        seconds: that each good answer took.
    """

    answered: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class MixedLoad:
    """Asks a student until it is stopped."""

    def __init__(self, url: str, task: str, texts: list[TextInput], rate: float) -> None:
        """
        Args:
            url: of the student.
            task: its name, as `/v2` has it.
            texts: to ask with.
            rate: requests a second.
        """
        self.seen = Seen()
        self._url = url
        self._task = task
        self._texts = texts
        self._rate = rate
        self._rng = random.Random(0)

    async def run(self, until: float) -> None:
        """Ask until `time.monotonic()` is `until`, then wait for what is under way."""
        limits = httpx.Limits(max_connections=16, max_keepalive_connections=16)
        async with (
            httpx.AsyncClient(
                base_url=self._url, limits=limits, timeout=30, trust_env=False
            ) as client,
            asyncio.TaskGroup() as requests,
        ):
            while time.monotonic() < until:
                await asyncio.sleep(self._rng.expovariate(self._rate))
                (kind,) = self._rng.choices(list(SHARES), list(SHARES.values()))
                requests.create_task(self._ask(client, kind))

    async def _ask(self, client: httpx.AsyncClient, kind: str) -> None:
        path, body, is_right = getattr(self, f"_{kind}")()
        started = time.monotonic()
        try:
            answer = await client.post(
                path, content=body, headers={"content-type": "application/json"}
            )
            right = is_right(answer)
        except Exception as error:  # Whatever it is, the request was not answered as it should be.
            self.seen.wrong.append(f"{kind}: {type(error).__name__} {error}")
            return
        if not right:
            self.seen.wrong.append(f"{kind}: {answer.status_code} {answer.text[:200]}")
            return
        self.seen.answered[kind] += 1
        if kind != "bad":
            self.seen.seconds.append(time.monotonic() - started)
            self.seen.degraded += DEGRADED_HEADER in answer.headers

    def _one(self) -> Any:
        return inputs_of(self._rng.choice(self._texts))

    def _several(self) -> list[Any]:
        chosen = [self._one() for _ in range(BATCH)]
        return [entry if isinstance(entry, list) else [entry] for entry in chosen]

    def _single(self) -> "_Asked":
        body = json.dumps({"inputs": self._one()}).encode()
        return "/predict", body, lambda answer: _good(answer) and "label" in answer.json()[0]

    def _batch(self) -> "_Asked":
        body = json.dumps({"inputs": self._several()}).encode()
        return "/predict", body, lambda answer: _good(answer) and len(answer.json()) == BATCH

    def _explained(self) -> "_Asked":
        body = json.dumps({"inputs": self._one(), "explain": True}).encode()
        return "/predict", body, lambda answer: _good(answer) and "release" in answer.json()

    def _v2(self) -> "_Asked":
        columns = zip(*self._several(), strict=True)
        tensors = [
            {"name": name, "datatype": "BYTES", "shape": [BATCH], "data": list(data)}
            for name, data in zip(("text", "text_pair"), columns, strict=False)
        ]
        body = json.dumps({"inputs": tensors}).encode()
        return (
            f"/v2/models/{self._task}/infer",
            body,
            lambda answer: _good(answer) and answer.json()["outputs"][0]["shape"][0] == BATCH,
        )

    def _bad(self) -> "_Asked":
        good = json.dumps({"inputs": self._one()}).encode()
        body = self._rng.choice(
            [
                good[: len(good) // 2],
                b'{"inputs": ""}',
                b'{"inputs": 7}',
                b'{"inputs": "a", "unknown": true}',
                b'{"inputs": [["a"], "b"]}',
                b"\xff\xfe",
                json.dumps({"inputs": "word " * 5000}).encode(),
                json.dumps({"inputs": [["a", "b", "c"]] * 300}).encode(),
            ]
        )
        return "/predict", body, lambda answer: 400 <= answer.status_code < 500


_Asked = tuple[str, bytes, Callable[[httpx.Response], bool]]


def _good(answer: httpx.Response) -> bool:
    return answer.status_code == 200
