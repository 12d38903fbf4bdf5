"""The open inference protocol v2, with Triton's own client and byte by byte."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tiny_release
from tiny_task import Service, TinyTask, build_task, student
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

TASK = tiny_release.TASK
TEXTS = ["wifi slow", "my printer jam", "I forgot my password ü"]
INFER = f"/v2/models/{TASK}/infer"
LONG = "printer " * 60


@pytest.fixture(scope="module")
def service(built_task: TinyTask) -> Iterator[Service]:
    with student(built_task, max_request_texts=8) as service:
        yield service


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    task = build_task(tmp_path_factory.mktemp("pairs") / "tiny", pair=True)
    with student(task) as service:
        yield service


@pytest.fixture
def triton(service: Service) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(f"127.0.0.1:{service.port}") as client:
        yield client


def text_input(
    texts: list[str], *, binary: bool, name: str = "text", column: bool = False
) -> InferInput:
    shape = [len(texts), 1] if column else [len(texts)]
    tensor = InferInput(name, shape, "BYTES")
    array = np.array([text.encode() for text in texts], dtype=np.object_).reshape(shape)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def tensor(data: list[object], **fields: object) -> dict[str, object]:
    return {"name": "text", "datatype": "BYTES", "shape": [len(data)], "data": data, **fields}


def test_triton_s_client_finds_the_server_and_its_model_ready(
    triton: InferenceServerClient, built_task: TinyTask
) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(TASK)
    assert triton.is_model_ready(TASK, built_task.one)
    assert not triton.is_model_ready("another")
    assert not triton.is_model_ready(TASK, built_task.two)
    server = triton.get_server_metadata()
    assert (server["name"], server["extensions"]) == ("retrikt", ["binary_tensor_data"])
    expected = {
        "name": TASK,
        "versions": [built_task.one],
        "platform": "retrikt",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1, -1]},
            {"name": "score", "datatype": "FP32", "shape": [-1, -1]},
        ],
    }
    assert triton.get_model_metadata(TASK) == expected
    assert triton.get_model_metadata(TASK, built_task.one) == expected


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False, None])
@pytest.mark.parametrize("column", [True, False])
def test_triton_s_client_gets_the_answers_of_predict(
    service: Service,
    triton: InferenceServerClient,
    built_task: TinyTask,
    binary_input: bool,
    binary_output: bool | None,
    column: bool,
) -> None:
    """None leaves the outputs to the client, as in its simplest use."""
    outputs = None
    if binary_output is not None:
        outputs = [
            InferRequestedOutput(name, binary_data=binary_output) for name in ("score", "label")
        ]
    result = triton.infer(
        TASK,
        [text_input(TEXTS, binary=binary_input, column=column)],
        outputs=outputs,
        model_version=built_task.one,
        request_id="seven",
    )
    response = result.get_response()
    assert response["model_name"] == TASK
    assert response["model_version"] == built_task.one
    assert response["id"] == "seven"
    labels, scores = result.as_numpy("label"), result.as_numpy("score")
    assert scores.dtype == np.float32
    expected = service.predict([[text] for text in TEXTS]).json()
    for row, answer in enumerate(expected):
        found = [label.decode() if isinstance(label, bytes) else label for label in labels[row]]
        assert found == [entry["label"] for entry in answer]
        np.testing.assert_allclose(scores[row], [entry["score"] for entry in answer], rtol=1e-6)


def test_triton_s_client_sends_the_parameters_of_predict(
    service: Service, triton: InferenceServerClient
) -> None:
    cut = triton.infer(
        TASK,
        [text_input([LONG], binary=True)],
        parameters={"truncate": True, "top_k": 2, "function_to_apply": "none"},
    )
    assert cut.as_numpy("score").shape == (1, 2)
    expected = service.predict(LONG, truncate=True, raw_scores=True).json()[:2]
    np.testing.assert_allclose(
        cut.as_numpy("score")[0], [entry["score"] for entry in expected], rtol=1e-5
    )
    only = triton.infer(
        TASK, [text_input(["wifi"], binary=False)], outputs=[InferRequestedOutput("score")]
    )
    assert only.as_numpy("label") is None


def test_triton_s_client_is_told_what_is_wrong(
    triton: InferenceServerClient, built_task: TinyTask
) -> None:
    text = text_input(["wifi"], binary=True)
    for call, status, told in [
        (lambda: triton.infer("another", [text]), "404", "This server has the model"),
        (lambda: triton.infer(TASK, [text], built_task.two), "404", "not served in the version"),
        (lambda: triton.get_model_metadata("another"), "404", "no model 'another'"),
        (lambda: triton.infer(TASK, [text_input([" "], binary=True)]), "400", "text[0] is empty"),
        (
            lambda: triton.infer(TASK, [text_input(["wifi", LONG], binary=True)]),
            "413",
            "inputs[1] has more than 24 tokens",
        ),
        (lambda: triton.infer(TASK, [text_input(["a"] * 9, binary=True)]), "413", "at most 8"),
        (
            lambda: triton.infer(TASK, [text], parameters={"function_to_apply": "sigmoid"}),
            "400",
            "exclude one another",
        ),
    ]:
        with pytest.raises(InferenceServerException) as caught:
            call()
        assert caught.value.status() == status
        assert told in caught.value.message()


def test_pairs_are_two_inputs(pairs: Service) -> None:
    with InferenceServerClient(f"127.0.0.1:{pairs.port}") as triton:
        names = [entry["name"] for entry in triton.get_model_metadata(TASK)["inputs"]]
        assert names == ["text", "text_pair"]
        expected = [entry["label"] for entry in pairs.predict(["wifi slow", "vpn offline"]).json()]
        for binary in (True, False):
            first = text_input(["wifi slow"], binary=binary)
            second = text_input(["vpn offline"], binary=binary, name="text_pair")
            for inputs in ([first, second], [second, first]):
                labels = triton.infer(TASK, inputs).as_numpy("label")
                assert [label.decode() for label in labels[0]] == expected
        for inputs in (
            [first],
            [first, first],
            [first, text_input(["a", "b"], binary=False, name="text_pair")],
        ):
            with pytest.raises(InferenceServerException) as caught:
                triton.infer(TASK, inputs)
            assert caught.value.status() == "400"


def test_plain_json_is_answered_as_the_protocol_has_it(
    service: Service, built_task: TinyTask
) -> None:
    body = {
        "inputs": [tensor(["wifi slow"], parameters={"content_type": "str"})],
        "outputs": [{"name": "label"}, {"name": "score"}],
        "parameters": {"top_k": 2, "sequence_id": 7},
    }
    response = service.http.post(INFER, json=body)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-retrikt-release"] == built_task.one
    best = service.predict("wifi slow").json()[:2]
    assert response.json() == {
        "model_name": TASK,
        "model_version": built_task.one,
        "outputs": [
            {
                "name": "label",
                "datatype": "BYTES",
                "shape": [1, 2],
                "data": [entry["label"] for entry in best],
            },
            {
                "name": "score",
                "datatype": "FP32",
                "shape": [1, 2],
                "data": [entry["score"] for entry in best],
            },
        ],
    }
    nested = {"inputs": [tensor([["wifi slow"]], shape=[1, 1])]}
    assert service.http.post(INFER, json=nested).json()["outputs"][0]["data"][:2] == [
        entry["label"] for entry in best
    ]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "'inputs' is not a list"),
        ([], "not a JSON object"),
        ({"inputs": [{"name": "input-0", "datatype": "BYTES"}]}, "takes the input 'text'"),
        ({"inputs": [tensor(["a"], datatype="FP32")]}, "datatype 'BYTES'"),
        ({"inputs": [tensor(["a"], shape=[2])]}, "but 1 elements"),
        ({"inputs": [tensor(["a"], shape=[1, 1, 1])]}, "Expected [n] or [n, 1]"),
        ({"inputs": [tensor(["a"], shape="[1]")]}, "not a list of sizes"),
        ({"inputs": [tensor([])]}, "are empty"),
        ({"inputs": [tensor(["a", 3])]}, "text[1] is not a text"),
        ({"inputs": [tensor(["a", ""])]}, "text[1] is empty"),
        ({"inputs": [tensor(["a"]) | {"data": "a"}]}, "is not a list"),
        ({"inputs": [tensor(["a"])], "outputs": [{"name": "logits"}]}, "'label' and 'score'"),
        ({"inputs": [tensor(["a"])], "outputs": [{"name": "label"}] * 2}, "at most once"),
        (
            {
                "inputs": [tensor(["a"])],
                "outputs": [{"name": "label", "parameters": {"classification": 3}}],
            },
            "'classification' is not served",
        ),
        ({"inputs": [tensor(["a"])], "id": 3}, "'id'"),
        ({"inputs": [tensor(["a"])], "parameters": {"top_k": 0}}, "'top_k'"),
        ({"inputs": [tensor(["a"], parameters={"binary_data_size": 9})]}, "both data and"),
    ],
)
def test_a_request_that_cannot_be_meant_is_400_with_the_protocol_s_error(
    service: Service, body: object, told: str
) -> None:
    response = service.http.post(INFER, json=body)
    assert response.status_code == 400
    assert set(response.json()) == {"error"}
    assert told in response.json()["error"]


def send_binary(service: Service, data: bytes, size: int, header_length: object) -> httpx.Response:
    head = (
        b'{"inputs":[{"name":"text","datatype":"BYTES","shape":[1],'
        b'"parameters":{"binary_data_size":%d}}]}' % size
    )
    length = len(head) if header_length is None else header_length
    headers = {"inference-header-content-length": str(length)}
    return service.http.post(INFER, content=head + data, headers=headers)


@pytest.mark.parametrize(
    ("data", "size", "header_length", "told"),
    [
        (b"\x04\x00\x00\x00wifi", 9, None, "8 bytes are left"),
        (b"\x04\x00\x00\x00wifi", 7, None, "ends within an element"),
        (b"\x04\x00\x00\x00wifi", 3, None, "ends within a length"),
        (b"\x04\x00\x00\x00wifi!", 8, None, "belong to no input"),
        (b"\xff\xff\xff\xffwifi", 8, None, "ends within an element"),
        (b"\x02\x00\x00\x00\xff\xfe", 6, None, "not UTF-8"),
        (b"\x04\x00\x00\x00wifi", -1, None, "not a number of bytes"),
        (b"", 0, None, "but 0 elements"),
        (b"", 0, 10_000, "within the body"),
        (b"", 0, -1, "within the body"),
        (b"", 0, "9" * 30, "within the body"),
        (b"", 0, "9" * 5000, "within the body"),
    ],
)
def test_binary_data_that_does_not_fit_is_400(
    service: Service, data: bytes, size: int, header_length: object, told: str
) -> None:
    response = send_binary(service, data, size, header_length)
    assert response.status_code == 400
    assert told in response.json()["error"]
    good = send_binary(service, b"\x04\x00\x00\x00wifi", 8, None)
    assert good.status_code == 200


def test_before_the_first_release_the_server_lives_and_is_not_ready(task: TinyTask) -> None:
    (task.releases.root / "live.json").unlink()
    with (
        student(task, ready=False) as service,
        InferenceServerClient(f"127.0.0.1:{service.port}") as triton,
    ):
        assert triton.is_server_live()
        assert not triton.is_server_ready()
        assert not triton.is_model_ready(TASK)
        assert service.http.get("/v2/health/ready").json() == {"ready": False}
        with pytest.raises(InferenceServerException, match="No release serves yet"):
            triton.infer(TASK, [text_input(["wifi"], binary=True)])


def test_requests_are_counted_by_their_route(service: Service) -> None:
    service.http.post(INFER, json={"inputs": [tensor(["wifi"])]})
    service.http.post(INFER, json={})
    metrics = service.http.get("/metrics").text
    route = 'route="/v2/models/{model}/infer"'
    assert f'retrikt_student_requests_total{{outcome="ok",{route}}}' in metrics
    assert f'retrikt_student_requests_total{{outcome="invalid_request",{route}}}' in metrics


def test_the_openapi_document_has_the_protocol_s_paths(service: Service) -> None:
    document = service.http.get("/openapi.json").json()
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        names = {entry["name"] for entry in document["paths"][path]["get"]["parameters"]}
        assert names == set(
            path.replace("/v2/models/", "").replace("{", "").replace("}", "").split("/")
        ) - {"versions"}
        assert "post" in document["paths"][f"{path}/infer"]
        assert "get" in document["paths"][f"{path}/ready"]
