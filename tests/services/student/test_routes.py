"""POST /predict of the service as shipped: what it answers, and what it says to what it cannot answer."""

import math
from collections.abc import Iterator

import httpx
import pytest
import tiny_release
from tiny_task import Service, TinyTask, build_task, student

from services.student.predict_request import FIELDS

LABELS = set(tiny_release.LABELS)
LONG = "printer " * 30 + "vpn " * 30


@pytest.fixture(scope="module")
def service(built_task: TinyTask) -> Iterator[Service]:
    with student(built_task, max_request_texts=8) as service:
        yield service


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    task = build_task(tmp_path_factory.mktemp("pairs") / "tiny", pair=True)
    with student(task, auto_truncate=True) as service:
        yield service


def test_one_text_is_answered_with_all_labels_best_first(
    service: Service, built_task: TinyTask
) -> None:
    response = service.predict("I forgot my password")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-retrikt-release"] == built_task.one
    assert "x-retrikt-degraded" not in response.headers
    assert response.headers["x-request-id"]
    entries = response.json()
    assert {entry["label"] for entry in entries} == LABELS
    scores = [entry["score"] for entry in entries]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert entries[0]["label"] == "login"
    assert service.predict(["I forgot my password"]).json() == entries
    assert service.predict([["I forgot my password"]]).json() == [entries]


def test_a_batch_is_answered_in_its_order(service: Service) -> None:
    texts = ["my printer jam", "wifi slow", "reset my password"]
    answers = service.predict([[text] for text in texts]).json()
    assert [answer[0]["label"] for answer in answers] == ["printer", "network", "login"]


def test_raw_scores_are_the_logarithms_of_the_probabilities(service: Service) -> None:
    plain = {entry["label"]: entry["score"] for entry in service.predict("wifi slow").json()}
    raw = service.predict("wifi slow", raw_scores=True).json()
    assert {entry["label"]: entry["score"] for entry in raw} == pytest.approx(
        {label: math.log(score) for label, score in plain.items()}, abs=1e-4
    )


def test_a_text_that_is_too_long_is_refused_or_cut_on_the_side_asked_for(service: Service) -> None:
    refused = service.predict(LONG)
    assert refused.status_code == 413
    assert refused.json()["code"] == "text_too_long"
    assert "24 tokens" in refused.json()["error"]
    assert service.predict(LONG, truncate=False).status_code == 413
    batch = service.predict([["wifi"], [LONG]])
    assert batch.status_code == 413
    assert "inputs[1]" in batch.json()["error"]
    assert service.predict(LONG, truncate=True).json()[0]["label"] == "printer"
    left = service.predict(LONG, truncate=True, truncation_direction="Left")
    assert left.json()[0]["label"] == "network"


def test_an_explained_answer_says_what_it_was_made_of(
    service: Service, built_task: TinyTask
) -> None:
    answer = service.predict([["wifi slow"], ["my printer jam"]], explain=True).json()
    assert answer["release"] == built_task.one
    assert answer["degraded"] is None
    assert set(answer["seconds"]) == {"tokenize", "encode", "search", "mix"}
    explanation = answer["predictions"][0]
    assert explanation["scores"] == service.predict("wifi slow").json()
    assert set(explanation["student"]) == set(explanation["store"]) == LABELS
    assert 0 < explanation["weight"] < 1
    assert len(explanation["neighbours"]) == 4
    nearest = explanation["neighbours"][0]
    assert nearest["label"] == "network"
    assert nearest["origin"] == "generated"
    assert set(nearest["text"].split()) & set(tiny_release.WORDS["network"])
    assert nearest["labels"]["network"] == pytest.approx(0.9, abs=1e-3)
    similarities = [neighbour["similarity"] for neighbour in explanation["neighbours"]]
    assert similarities == sorted(similarities, reverse=True)
    mixed = {
        label: explanation["weight"] * explanation["store"][label]
        + (1 - explanation["weight"]) * explanation["student"][label]
        for label in LABELS
    }
    assert mixed == pytest.approx(
        {entry["label"]: entry["score"] for entry in explanation["scores"]}, abs=1e-5
    )


@pytest.mark.parametrize(
    ("body", "status", "code", "told"),
    [
        (b'{"inputs": ""}', 422, "invalid_request", "inputs is empty"),
        (b'{"inputs": [["a"], [" "]]}', 422, "invalid_request", "inputs[1] is empty"),
        (b'{"inputs": ["a", "b"]}', 422, "invalid_request", '[["a"], ["b"]]'),
        (b'{"inputs": "a", "top": 3}', 422, "invalid_request", "'top' is unknown"),
        (b'{"input": "a"}', 422, "invalid_request", "'input' is unknown"),
        (b"{}", 422, "invalid_request", "'inputs' is missing"),
        (b'{"inputs": ', 422, "invalid_request", "not JSON"),
        (b"", 422, "invalid_request", "not JSON"),
        (b"\xff\xfe", 422, "invalid_request", "not JSON"),
        (b'{"inputs": 3}', 422, "invalid_request", "neither a text nor a list"),
        (b'{"inputs": "a", "explain": "yes"}', 422, "invalid_request", "'explain'"),
        (b'{"inputs": [' + b",".join([b'["a"]'] * 9) + b"]}", 413, "batch_too_large", "at most 8"),
        (b'{"inputs": "' + b"a" * 10_000_000 + b'"}', 413, "body_too_large", "2097152 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_answered_is_told_with_a_code_and_in_the_body_of_tei(
    service: Service, body: bytes, status: int, code: str, told: str
) -> None:
    response = service.http.post("/predict", content=body)
    assert response.status_code == status
    assert set(response.json()) == {"error", "error_type", "code"}
    assert response.json()["error_type"] == "Validation"
    assert response.json()["code"] == code
    assert told in response.json()["error"]
    assert service.predict("wifi").status_code == 200


def test_ten_megabytes_sent_in_chunks_without_a_length_are_refused(service: Service) -> None:
    response = service.http.post("/predict", content=(b"a" * 100_000 for _ in range(100)))
    assert response.status_code == 413
    assert response.json()["code"] == "body_too_large"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_another_method_is_refused(service: Service, method: str) -> None:
    assert service.http.request(method, "/predict").status_code == 405


def test_a_text_of_any_letters_is_classified(service: Service) -> None:
    for text in ("\u0000", "🖨️ wifi", "ｗｉｆｉ", "a" * 50_000, "打印机"):
        assert service.predict(text, truncate=True).status_code == 200


def test_the_parameters_of_the_inference_api_are_answered_in_its_form(service: Service) -> None:
    plain = service.predict("wifi slow").json()
    assert service.predict("wifi slow", parameters={}).json() == [plain]
    assert service.predict("wifi slow", parameters={"top_k": 2}).json() == [plain[:2]]
    assert service.predict("wifi slow", parameters={"top_k": 99}).json() == [plain]
    assert service.predict([["wifi slow"]], parameters={"top_k": 1}).json() == [plain[:1]]
    softmax = service.predict("wifi slow", parameters={"function_to_apply": "softmax"})
    assert softmax.json() == [plain]
    raw = service.predict("wifi slow", raw_scores=True).json()
    none = service.predict("wifi slow", parameters={"function_to_apply": "none", "top_k": 1})
    assert none.json() == [raw[:1]]
    explained = service.predict("wifi slow", parameters={"top_k": 1}, explain=True).json()
    assert explained["predictions"][0]["scores"] == plain[:1]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"parameters": {"function_to_apply": "sigmoid"}}, "exclude one another"),
        ({"parameters": {"function_to_apply": "tanh"}}, "neither 'softmax' nor 'none'"),
        ({"parameters": {"function_to_apply": "softmax"}, "raw_scores": True}, "exclude each"),
        ({"parameters": {"top_k": 0}}, "'top_k'"),
        ({"parameters": {"top_k": True}}, "'top_k'"),
        ({"parameters": {"top_p": 1}}, "'top_p' is unknown"),
        ({"parameters": [1]}, "'parameters' is not an object"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused(
    service: Service, fields: dict[str, object], told: str
) -> None:
    response = service.predict("wifi slow", **fields)
    assert response.status_code == 422
    assert told in response.json()["error"]


def test_with_partial_a_bad_input_has_its_error_in_its_place(service: Service) -> None:
    inputs: list[object] = [[" "], ["wifi slow"], [LONG], "wifi", ["my printer jam"], ["a", "b"]]
    assert service.predict(inputs).status_code == 422
    answers = service.predict(inputs, partial=True)
    assert answers.status_code == 200
    assert [
        answer["code"] if isinstance(answer, dict) else answer[0]["label"]
        for answer in answers.json()
    ] == [
        "invalid_request", "network", "text_too_long", "invalid_request", "printer",
        "invalid_request",
    ]  # fmt: skip
    assert answers.json()[1] == service.predict("wifi slow").json()
    assert set(answers.json()[0]) == {"error", "error_type", "code"}
    for position in (0, 2, 3, 5):
        assert f"inputs[{position}]" in answers.json()[position]["error"]
    explained = service.predict(inputs, partial=True, explain=True).json()["predictions"]
    assert [entry.get("code") for entry in explained] == [
        "invalid_request", None, "text_too_long", "invalid_request", None, "invalid_request",
    ]  # fmt: skip
    assert explained[4]["scores"] == answers.json()[4]


def test_partial_answers_a_batch_in_which_nothing_can_be_classified(
    service: Service, built_task: TinyTask
) -> None:
    answer = service.predict([[""], [LONG]], partial=True)
    assert [entry["code"] for entry in answer.json()] == ["invalid_request", "text_too_long"]
    assert answer.headers["x-retrikt-release"] == built_task.one
    assert "x-retrikt-degraded" not in answer.headers
    assert service.predict([[""]], partial=True, explain=True).json()["degraded"] is None
    assert service.predict("", partial=True).status_code == 422
    assert service.predict(LONG, partial=True).status_code == 413


def test_pairs_are_a_list_of_two_and_a_batch_of_pairs_a_list_of_those(pairs: Service) -> None:
    one = pairs.predict(["wifi slow", "vpn offline"])
    assert one.status_code == 200
    assert one.json()[0]["label"] == "network"
    assert pairs.predict([["wifi slow", "vpn offline"]]).json() == [one.json()]
    for inputs, told in [
        ("wifi", "pairs of texts"),
        ([["wifi"]], "expected 2"),
        (["a", "b", "c"], "a pair has two"),
        ([["wifi", " "]], "inputs[0][1] is empty"),
    ]:
        response = pairs.predict(inputs)
        assert response.status_code == 422
        assert told in response.json()["error"]
    explained = pairs.predict(["wifi slow", "vpn offline"], explain=True).json()
    assert explained["predictions"][0]["neighbours"][0]["text_pair"].endswith("please")


def test_long_texts_are_cut_without_asking_where_the_server_is_set_so(pairs: Service) -> None:
    assert pairs.predict([LONG, "wifi"]).status_code == 200
    assert pairs.predict([LONG, "wifi"], truncate=False).status_code == 413
    assert pairs.http.get("/info").json()["auto_truncate"] is True


def test_health_info_and_metrics_say_what_is_served(service: Service, built_task: TinyTask) -> None:
    assert service.http.get("/livez").json() == {"status": "live"}
    ready = service.http.get("/readyz").json()
    assert ready == {
        "status": "ready",
        "release": built_task.one,
        "degraded": None,
        "refused": None,
    }
    info = service.http.get("/info").json()
    assert info["model_id"] == info["task"] == tiny_release.TASK
    assert info["release"] == info["model_sha"] == built_task.one
    assert info["labels"] == list(tiny_release.LABELS)
    assert info["label_names"][0] == "about the login"
    assert info["model_type"]["classifier"]["id2label"]["0"] == "login"
    assert (info["max_input_length"], info["max_client_batch_size"]) == (24, 8)
    assert (info["max_request_seconds"], info["max_search_seconds"]) == (5.0, 0.25)
    assert info["max_body_bytes"] == 2 * 1024 * 1024
    assert info["keys"] == {"read": False, "text": False}
    metrics = service.http.get("/metrics").text
    for line in (
        'retrikt_student_requests_total{outcome="ok",route="/predict"}',
        'retrikt_student_requests_total{outcome="text_too_long",route="/predict"}',
        "retrikt_student_texts_total",
        'retrikt_student_stage_seconds_count{stage="search"}',
        "retrikt_student_batch_texts_count",
        "retrikt_student_best_similarity_count",
        'retrikt_student_agreement_total{agree="yes"}',
        f'retrikt_student_release_info{{release="{built_task.one}"',
        "retrikt_student_release_refused 0.0",
        "retrikt_student_waiting_texts 0.0",
    ):
        assert line in metrics


def test_the_openapi_document_describes_the_body_and_the_errors(service: Service) -> None:
    document = service.http.get("/openapi.json").json()
    operation = document["paths"]["/predict"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == set(FIELDS)
    assert "$ref" not in str(schema)
    assert set(operation["responses"]) == {"200", "401", "403", "413", "422", "429", "503"}


def test_logs_never_hold_a_text(service: Service) -> None:
    service.predict("confidential printer")
    service.http.post("/predict", content=b'{"inputs": "confidential printer"')
    service.predict(["confidential", "printer"])
    assert "confidential" not in service.events()
    assert '"route":"/predict"' in service.events()


def test_curl_as_in_the_documents_is_answered(service: Service) -> None:
    """curl's `-d` announces a form; the body is what counts."""
    response = httpx.post(
        f"http://127.0.0.1:{service.port}/predict",
        content=b'{"inputs": "wifi slow"}',
        headers={"content-type": "application/x-www-form-urlencoded"},
        trust_env=False,
    )
    assert response.status_code == 200
