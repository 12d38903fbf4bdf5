"""The store service's routes: what they answer, what they refuse, and that no fault becomes a stack trace."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from knowledge_samples import LABELS, unit_vectors, write_sample
from pydantic import BaseModel, ValidationError

from services.platform.errors import InvalidConfig
from services.platform.server import bind
from services.platform.settings import load_settings
from services.store.app import create_app
from services.store.backends.edge import EdgeBackend
from services.store.knowledge_file import iterate_points, version_manifest
from services.store.schemas import ItemsRequest, SearchRequest
from services.store.settings import StoreSettings


def settings(tmp_path: Path, **more: Any) -> StoreSettings:
    return StoreSettings(
        directory=tmp_path / "store",
        private_directory=tmp_path / "private",
        max_batch=4,
        max_k=300,
        max_ids=3,
        access_log=False,
        **more,
    )


def publish(tmp_path: Path, seed: int = 0) -> str:
    knowledge = write_sample(tmp_path / f"knowledge-{seed}", seed=seed)
    backend = EdgeBackend(tmp_path / "store", private=tmp_path / "private")
    return backend.build(version_manifest(knowledge), iterate_points(knowledge)).version


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("task")
    publish(directory)
    return directory


@pytest.fixture(scope="module")
def version(directory: Path) -> str:
    return version_manifest(directory / "knowledge-0").version


@pytest.fixture
def client(directory: Path) -> Iterator[TestClient]:
    with TestClient(create_app(settings(directory))) as client:
        yield client


def search(client: TestClient, version: str, **query: Any) -> httpx.Response:
    return client.post(f"/v1/versions/{version}/search", json=query)


def test_search_answers_ids_and_scores_best_first(client: TestClient, version: str) -> None:
    vectors = unit_vectors(200)[:2].tolist()
    answer = search(client, version, vectors=vectors, k=3).json()
    assert answer["version"] == version
    assert [row[0] for row in answer["ids"]] == [0, 1]
    assert np.allclose([row[0] for row in answer["scores"]], 1.0, atol=1e-5)
    assert all(row == sorted(row, reverse=True) for row in answer["scores"])
    assert "items" not in answer
    assert answer == search(client, version, vectors=vectors, k=3, exact=True).json()


def test_padding_is_minus_one_and_null_and_texts_come_when_asked_for(
    client: TestClient, version: str
) -> None:
    vectors = unit_vectors(200)[:1].tolist()
    answer = search(client, version, vectors=vectors, k=201, with_items=True).json()
    assert (answer["ids"][0][-1], answer["scores"][0][-1]) == (-1, None)
    assert answer["items"][0][-1] is None
    assert answer["items"][0][0] == {
        "id": 0,
        "text": "text 0 – ünïcode",
        "text_pair": None,
        "label": LABELS[0],
        "origin": "train",
    }


def test_versions_are_listed_and_described(client: TestClient, version: str) -> None:
    (listed,) = client.get("/v1/versions").json()["versions"]
    assert listed == client.get(f"/v1/versions/{version}").json()
    assert (listed["version"], listed["count"], listed["dimensions"]) == (version, 200, 16)


def test_items_are_looked_up_by_id(client: TestClient, version: str) -> None:
    path = f"/v1/versions/{version}/items"
    answer = client.post(path, json={"ids": [5, 2]}).json()
    assert [item["text"] for item in answer["items"]] == ["text 5 – ünïcode", "text 2 – ünïcode"]
    missing = client.post(path, json={"ids": [200]})
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


VECTOR = [0.25] * 16


@pytest.mark.parametrize(
    ("query", "status", "code", "message"),
    [
        ({}, 422, "invalid_request", "vectors: Field required"),
        ({"vectors": []}, 422, "invalid_request", "vectors: List should have at least 1 item"),
        ({"vectors": [[]]}, 422, "invalid_request", "vectors.0: List should have at least 1"),
        ({"vectors": [["a"]]}, 422, "invalid_request", "vectors.0.0: Input should be a valid num"),
        ({"vectors": [VECTOR, VECTOR[1:]]}, 422, "invalid_request", "differ in their number"),
        ({"vectors": [VECTOR[1:]]}, 422, "invalid_request", "has 16 dimensions"),
        ({"vectors": [[1e39] * 16]}, 422, "invalid_request", "vectors.0.0: Input should be less"),
        ({"vectors": [VECTOR], "k": 0}, 422, "invalid_request", "k: Input should be greater"),
        ({"vectors": [VECTOR], "k": 301}, 422, "invalid_request", "at most 300 is taken"),
        (
            {"vectors": [VECTOR], "k": True},
            422,
            "invalid_request",
            "k: Input should be a valid int",
        ),
        (
            {"vectors": [["1.5"] * 16]},
            422,
            "invalid_request",
            "vectors.0.0: Input should be a valid",
        ),
        ({"vectors": [VECTOR], "K": 3}, 422, "invalid_request", "K: Extra inputs"),
        ({str(n): n for n in range(5)}, 422, "invalid_request", "it has unknown fields"),
        ({"vectors": [VECTOR] * 5}, 413, "batch_too_large", "5 vectors in one request, at most 4"),
    ],
)
def test_a_search_that_cannot_be_answered_is_told_why(
    client: TestClient, version: str, query: dict[str, Any], status: int, code: str, message: str
) -> None:
    answer = search(client, version, **query)
    assert answer.status_code == status
    assert answer.json()["code"] == code
    assert message in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"vectors": [[NaN]]}', b"\xff\xfe", b"null"])
def test_a_body_that_is_no_search_is_refused(client: TestClient, version: str, body: bytes) -> None:
    answer = client.post(f"/v1/versions/{version}/search", content=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_too_many_ids_and_too_large_a_body_are_refused(client: TestClient, version: str) -> None:
    many = client.post(f"/v1/versions/{version}/items", json={"ids": [0, 1, 2, 3]})
    assert (many.status_code, many.json()["code"]) == (413, "batch_too_large")
    large = client.post(f"/v1/versions/{version}/search", content=b" " * (16 * 1024 * 1024 + 1))
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("name", ["v-absent", "..", "%2e%2e%2fstore", "A", "v-%00", "x" * 200])
def test_an_unknown_version_is_404_on_every_route(client: TestClient, name: str) -> None:
    answers = [
        client.get(f"/v1/versions/{name}"),
        client.post(f"/v1/versions/{name}/search", json={"vectors": [VECTOR]}),
        client.post(f"/v1/versions/{name}/items", json={"ids": [0]}),
    ]
    for answer in answers:
        assert answer.status_code == 404
        assert answer.json()["code"] in ("version_not_found", "no_such_path")


def test_a_version_published_while_the_service_runs_is_there_at_once(tmp_path: Path) -> None:
    with TestClient(create_app(settings(tmp_path))) as client:
        assert client.get("/readyz").json() == {"status": "ready", "versions": 0}
        assert client.get("/v1/versions").json() == {"versions": []}
        for seed in (0, 1):
            version = publish(tmp_path, seed)
            vectors = unit_vectors(200, seed=seed)[7:8].tolist()
            assert search(client, version, vectors=vectors, k=1).json()["ids"] == [[7]]
            assert client.get("/readyz").json()["versions"] == seed + 1
    assert list((tmp_path / "private").iterdir()) == []


def test_damaged_sealed_files_are_an_error_with_a_code(tmp_path: Path) -> None:
    version = publish(tmp_path)
    for path in (tmp_path / "store" / version / "shard").rglob("segment.json"):
        path.write_text("{}")
    with TestClient(create_app(settings(tmp_path))) as client:
        answer = search(client, version, vectors=[VECTOR])
        assert (answer.status_code, answer.json()["code"]) == (500, "corrupt_artifact")


def test_more_searches_than_may_wait_are_refused_with_429(directory: Path, version: str) -> None:
    few = settings(directory, threads=1, max_waiting=1)
    with TestClient(create_app(few)) as client:
        search(client, version, vectors=[VECTOR])
        statuses: list[int] = []

        def work() -> None:
            for _ in range(15):
                statuses.append(search(client, version, vectors=[VECTOR] * 4, k=200).status_code)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200, 429}
        assert search(client, version, vectors=[VECTOR]).status_code == 200
        assert "retrikt_store_waiting 0.0" in client.get("/metrics").text


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (SearchRequest, {"vectors": [["a"] * 1000] * 1000}),
        (SearchRequest, {"vectors": ["a"] * 1000}),
        (ItemsRequest, {"ids": [-1] * 1000}),
    ],
)
def test_of_many_faults_one_is_noted(model: type[BaseModel], body: object) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(json.dumps(body))
    assert caught.value.error_count() == 1


@pytest.mark.parametrize("path", ["search", "items"])
def test_a_body_that_does_not_come_is_not_waited_for(directory: Path, path: str) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(30)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": f"/v1/versions/live/{path}",
        "query_string": b"",
        "headers": [(b"content-length", b"9")],
    }
    with TestClient(create_app(settings(directory, max_body_seconds=0.2))) as client:
        asyncio.run(client.app(scope, receive, send))
    assert sent[0]["status"] == 503
    assert b'"code":"timed_out"' in sent[1]["body"]


def test_a_qdrant_server_that_is_away_is_503_and_no_stack_trace() -> None:
    listener = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    for grpc in (False, True):
        away = StoreSettings(
            backend="server", qdrant_url=url, task="toy", qdrant_grpc=grpc,
            qdrant_grpc_port=int(url.rsplit(":", 1)[1]), qdrant_timeout_seconds=1, access_log=False,
        )  # fmt: skip
        with TestClient(create_app(away)) as client:
            answers = [
                client.get("/readyz"),
                client.get("/v1/versions"),
                search(client, "v-1", vectors=[VECTOR]),
            ]
            for answer in answers:
                assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
                assert answer.json()["error"].startswith("Qdrant ")
            assert client.get("/livez").status_code == 200


def test_settings_without_what_their_backend_needs_are_refused() -> None:
    for given, message in (
        ({}, "RETRIKT_STORE_DIRECTORY"),
        ({"backend": "server"}, "RETRIKT_STORE_QDRANT_URL"),
        ({"backend": "milvus"}, "RETRIKT_STORE_BACKEND"),
    ):
        with pytest.raises(InvalidConfig, match=message):
            load_settings(StoreSettings, **given)


def test_the_openapi_document_names_bodies_answers_and_errors(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    post = document["paths"]["/v1/versions/{version}/search"]["post"]
    body = post["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"vectors", "k", "exact", "with_items"}
    assert (body["properties"]["vectors"]["maxItems"], body["properties"]["k"]["maximum"]) == (
        4,
        300,
    )
    answer = post["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/SearchAnswer"}
    assert set(post["responses"]) >= {"200", "404", "413", "422", "429", "503"}
    assert "ErrorAnswer" in document["components"]["schemas"]
    info = client.get("/info").json()
    assert info["limits"]["max_batch"] == 4
