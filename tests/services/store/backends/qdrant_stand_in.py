"""The part of Qdrant's REST interface that building, searching and deleting a version take, without a server.

It compares with every point, keeps everything in memory, and remembers how its collections were made and what each
search was told beside its vector. What only a real one does (graphs, compression, shards) it does not.
"""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


class StandIn(ThreadingHTTPServer):
    """A server on any free port.

    Attributes:
        made: how each collection was made.
        points: of each collection, by id: vector and payload.
        metadata: of each collection.
        queries: that were asked, oldest first.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.made: dict[str, dict[str, Any]] = {}
        self.points: dict[str, dict[int, tuple[list[float], dict[str, Any]]]] = {}
        self.metadata: dict[str, dict[str, Any]] = {}
        self.queries: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def do_GET(self) -> None:
        name = self._collection()
        if name is None:
            self._result({"collections": [{"name": known} for known in self.server.made]})
        elif name in self.server.made:
            self._result(self._described(name))
        else:
            self._tell({"status": {"error": "Not found"}, "time": 0.0}, 404)

    def do_PUT(self) -> None:
        body, name = self._body(), self._collection()
        assert name is not None
        if "/points" not in self.path:
            self.server.made[name] = body
            self.server.points[name] = {}
            self.server.metadata.pop(name, None)
            self._result(True)
            return
        batch = body["batch"]
        for each, vector, payload in zip(
            batch["ids"], batch["vectors"], batch["payloads"], strict=True
        ):
            self.server.points[name][each] = (vector, payload)
        self._result({"operation_id": 1, "status": "completed"})

    def do_PATCH(self) -> None:
        body, name = self._body(), self._collection()
        assert name is not None
        self.server.metadata.setdefault(name, {}).update(body.get("metadata") or {})
        self._result(True)

    def do_POST(self) -> None:
        body, name = self._body(), self._collection()
        path = self.path.split("?")[0]
        if name not in self.server.made:
            self._tell({"status": {"error": "Not found"}, "time": 0.0}, 404)
        elif path.endswith("/count"):
            self._result({"count": len(self.server.points[name])})
        elif path.endswith("/query/batch"):
            self.server.queries += body["searches"]
            self._result([{"points": self._nearest(name, query)} for query in body["searches"]])
        else:
            found = [each for each in body["ids"] if each in self.server.points[name]]
            self._result(
                [{"id": each, "payload": self.server.points[name][each][1]} for each in found]
            )

    def do_DELETE(self) -> None:
        self._result(self.server.made.pop(self._collection() or "", None) is not None)

    def _nearest(self, name: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        points = self.server.points[name]
        if not points:
            return []
        asked = query["query"]
        vector = asked["nearest"] if isinstance(asked, dict) else asked
        scores = np.array([own for own, _ in points.values()]) @ np.array(vector)
        order = np.argsort(-scores, kind="stable")[: query["limit"]]
        ids = list(points)
        return [{"id": ids[n], "version": 0, "score": float(scores[n])} for n in order]

    def _described(self, name: str) -> dict[str, Any]:
        made = self.server.made[name]
        return {
            "status": "green",
            "optimizer_status": "ok",
            "segments_count": 1,
            "payload_schema": {},
            "config": {
                "params": {"vectors": made["vectors"]},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
                "optimizer_config": {
                    "deleted_threshold": 0.2,
                    "vacuum_min_vector_number": 1000,
                    "default_segment_number": 0,
                    "flush_interval_sec": 5,
                },
                "quantization_config": made.get("quantization_config"),
                "metadata": self.server.metadata.get(name),
            },
        }

    def _collection(self) -> str | None:
        found = re.match(r"/collections/([^/?]+)", self.path)
        return found[1] if found else None

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def _result(self, result: Any) -> None:
        self._tell({"result": result, "status": "ok", "time": 0.0})

    def _tell(self, body: Any, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass
