"""Clients that people have already: Hugging Face's own, and those of Text Embeddings Inference."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_release
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from tiny_task import Service, TinyTask, student

from services.student.settings import StudentSettings

API = Path(__file__).parents[3] / "docs/api.md"
KEY = "a-key-of-the-readers"


@pytest.fixture(scope="module")
def service(built_task: TinyTask) -> Iterator[Service]:
    with student(built_task, read_keys=KEY) as service:
        service.http.headers["authorization"] = f"Bearer {KEY}"
        yield service


@pytest.mark.parametrize("path", ["", "/predict"])
def test_hugging_face_s_client_gets_all_labels_best_first(service: Service, path: str) -> None:
    client = InferenceClient(f"http://127.0.0.1:{service.port}{path}", token=KEY)
    expected = service.predict("wifi slow").json()
    found = client.text_classification("wifi slow")
    assert [(entry.label, entry.score) for entry in found] == [
        (entry["label"], entry["score"]) for entry in expected
    ]


def test_hugging_face_s_client_sends_its_parameters(service: Service) -> None:
    client = InferenceClient(f"http://127.0.0.1:{service.port}", token=KEY)
    raw = service.predict("wifi slow", raw_scores=True).json()
    found = client.text_classification("wifi slow", top_k=2, function_to_apply="none")
    assert [(entry.label, entry.score) for entry in found] == [
        (entry["label"], entry["score"]) for entry in raw[:2]
    ]
    with pytest.raises(HfHubHTTPError, match="exclude one another") as caught:
        client.text_classification("wifi slow", function_to_apply="sigmoid")
    assert caught.value.response.status_code == 422


def test_hugging_face_s_client_is_told_that_its_key_is_wrong(service: Service) -> None:
    client = InferenceClient(f"http://127.0.0.1:{service.port}", token="hf_something_else_here")
    with pytest.raises(HfHubHTTPError) as caught:
        client.text_classification("wifi slow")
    assert caught.value.response.status_code == 401


def test_curl_posts_a_text_a_pair_of_lists_and_a_file(service: Service) -> None:
    def curl(*arguments: str, body: bytes = b"") -> bytes:
        url = f"http://127.0.0.1:{service.port}/predict"
        options = ["--silent", "--show-error", "--noproxy", "*"]
        done = subprocess.run(
            ["curl", *options, "-H", f"authorization: Bearer {KEY}", *arguments, url],
            input=body,
            capture_output=True,
            check=True,
        )
        return done.stdout

    one = service.predict("wifi slow")
    # Without a content type, `-d` announces a form; the body is what counts.
    assert curl("-d", '{"inputs": "wifi slow"}') == one.content
    assert curl("-d", '{"inputs": [["wifi slow"]]}') == b"[" + one.content + b"]"
    assert curl("--data-binary", "@-", body=b'{"inputs": "wifi slow"}') == one.content
    chunked = ("-H", "transfer-encoding: chunked", "--data-binary", "@-")
    assert curl(*chunked, body=b'{"inputs": "wifi slow"}') == one.content
    waits = ("-H", "expect: 100-continue", "-d", '{"inputs": "wifi slow"}')
    assert curl(*waits) == one.content


def test_health_of_text_embeddings_inference_is_200_and_needs_no_key(service: Service) -> None:
    response = service.http.get("/health", headers={"authorization": ""})
    assert (response.status_code, response.content) == (200, b"")


def documented_calls() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", API.read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in blocks if block.startswith("curl")]


@pytest.mark.parametrize("call", documented_calls())
def test_the_calls_of_the_documentation_are_answered(service: Service, call: str) -> None:
    call = call.replace("\\\n", " ").replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
    call = call.replace("/helpdesk/", f"/{tiny_release.TASK}/")
    words = [*shlex.split(call), "--noproxy", "*", "-H", f"authorization: Bearer {KEY}"]
    answer = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    if isinstance(answer, dict):
        assert answer["outputs"][0]["data"] == ["printer"]
    else:
        assert answer[0][0]["label"] == "printer"
        assert answer[1]["code"] == "invalid_request"


def test_the_settings_of_the_documentation_are_settings() -> None:
    lines = [line for line in API.read_text(encoding="utf-8").splitlines() if "RETRIKT_" in line]
    names = re.findall(r"`(?:RETRIKT_STUDENT|…)_([A-Z_]+)`", "\n".join(lines))
    assert len(names) >= 10
    assert {name.lower() for name in names} <= set(StudentSettings.model_fields)
