"""The part of the Hugging Face hub that finding and downloading a model takes, for the real client."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

MODEL = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "README.md": b"# A model\n",
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickled",
    "tokenizer.json": b"{}",
}


@dataclass(frozen=True, slots=True)
class Repository:
    """What the hub has under a name: one commit; `gated` lets everybody see it, and nobody download it."""

    commit: str
    files: Mapping[str, bytes]
    gated: bool = False


class HubStandIn(ThreadingHTTPServer):
    """A server on any free port, which serves within a `with` until it is `gone`.

    Attributes:
        models: by name.
        downloads: of files, that were begun.
        hangs_up_on: a file; whoever asks for it gets no answer, and the connection is closed.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: dict[str, Repository] = {}
        self.downloads: list[str] = []
        self.hangs_up_on: str | None = None

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gone()

    def gone(self) -> None:
        """Close the port."""
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: HubStandIn

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        asked = self.path.partition("?")[0].strip("/")
        about = asked.startswith("api/models/")
        asked = asked.removeprefix("api/models/")
        owner, model, *rest = asked.split("/")
        found = self.server.models.get(f"{owner}/{model}")
        if found is None:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif about:
            told = _listing(found) if rest[:1] == ["tree"] else _described(asked, found)
            self._answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})
        elif found.gated:
            self._answer(403, b"", {"X-Error-Code": "GatedRepo"})
        else:
            name = "/".join(rest[2:])  # resolve/COMMIT/FILE
            if name == self.server.hangs_up_on:
                self.close_connection = True
                return
            if self.command == "GET":
                self.server.downloads.append(name)
            content = found.files[name]
            self._answer(
                200, content, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": found.commit}
            )

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _described(name: str, found: Repository) -> dict[str, Any]:
    return {
        "id": name,
        "sha": found.commit,
        "gated": "auto" if found.gated else False,
        "siblings": [{"rfilename": file} for file in found.files],
    }


def _listing(found: Repository) -> list[dict[str, Any]]:
    return [
        {"type": "file", "path": file, "size": len(content), "oid": _oid(content)}
        for file, content in found.files.items()
    ]


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()
