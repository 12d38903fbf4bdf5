from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from offline.student.export import export_onnx
from offline.student.model import ShapeConfig, Student, StudentShape
from offline.student.quantisation import Rounding, quantise, quantise_file
from services.platform.errors import CorruptArtifact, InvalidConfig

SIZES = ShapeConfig(
    vocabulary=70,
    coded=50,
    codes=4,
    embedding=12,
    hidden=32,
    layers=2,
    heads=2,
    feed_forward=48,
    query=8,
    max_tokens=40,
)


def exported(path: Path, sizes: ShapeConfig = SIZES) -> Path:
    torch.manual_seed(0)
    model = Student(StudentShape(120 if sizes.codes else 70, 70, 5, sizes))
    with torch.no_grad():
        if sizes.codes:
            model.tokens.codes.random_(0, 256)
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    export_onnx(model, path)
    return path


def texts(count: int, seed: int) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 70, size=random.integers(2, 40)).tolist() for _ in range(count)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Rounding]:
    """The student in fp32 and in int8, and what rounding changed."""
    directory = tmp_path_factory.mktemp("rounded")
    exact, rounded = exported(directory / "fp32.onnx"), directory / "int8.onnx"
    rounded.write_bytes(exact.read_bytes())
    return exact, rounded, quantise_file(rounded, texts(64, 1), texts(64, 2))


def run(path: Path, ids: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(
        ["logits", "query"], {"input_ids": ids, "attention_mask": mask}
    )
    return found


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_every_dense_layer_is_rounded_with_its_bias(both: tuple[Path, Path, Rounding]) -> None:
    exact, rounded, _ = both
    assert operators(exact).count("Attention") == SIZES.layers
    assert operators(rounded).count("QAttention") == SIZES.layers
    # The output's projection and the two of the feed-forward part.
    assert operators(rounded).count("MatMulIntegerToFloat") == 3 * SIZES.layers
    assert not {"Attention", "MatMul"} & {*operators(rounded)}
    kinds = {value.name: value.data_type for value in onnx.load(rounded).graph.initializer}
    assert sum(kind == TensorProto.INT8 for kind in kinds.values()) == 2 * 4 * SIZES.layers


def test_answers_are_nearly_those_of_fp32(both: tuple[Path, Path, Rounding]) -> None:
    exact, rounded, told = both
    ids = np.array(texts(1, 3))
    mask = np.ones_like(ids)
    for one, other in zip(run(exact, ids, mask), run(rounded, ids, mask), strict=True):
        assert not np.array_equal(one, other)
        np.testing.assert_allclose(one, other, atol=0.1)
    assert told.texts == 64
    assert 0 < told.logits < 0.2
    assert 0.999 < told.cosine < 1
    assert told.same_label > 0.9


def test_an_answer_does_not_depend_on_who_else_is_in_the_batch(
    both: tuple[Path, Path, Rounding],
) -> None:
    _, rounded, _ = both
    random = np.random.default_rng(0)
    alone = random.integers(0, 70, size=(1, 6))
    beside = random.integers(0, 70, size=(9, 40))
    mask = np.ones_like(beside)
    beside[4, :6], mask[4, 6:] = alone, 0
    expected = run(rounded, alone, np.ones_like(alone))
    for one, other in zip(expected, run(rounded, beside, mask), strict=True):
        np.testing.assert_allclose(one[0], other[4], atol=1e-4)


def test_values_beyond_the_range_are_clipped_not_wrapped(tmp_path: Path) -> None:
    weight = np.eye(4, dtype=np.float32)
    rounded = quantise(product(weight), [[1, 1, 1, 1]])
    path = tmp_path / "clipped.onnx"
    onnx.save(rounded, path)
    ids = np.array([[1, 1, 9, 1]], dtype=np.int64)
    (found,) = onnxruntime.InferenceSession(path).run(
        ["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    )
    np.testing.assert_allclose(found, [[1, 1, 1, 1]], atol=0.02)


def product(
    weight: np.ndarray, *, also_read: bool = False, times_largest: bool = False
) -> onnx.ModelProto:
    """A graph of one product of the ids with a matrix, and a bias; the query times the batch's largest, if asked."""
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["floats", "weight"], ["product"]),
        helper.make_node("Add", ["bias", "product"], ["logits"]),
        helper.make_node("ReduceMax", ["floats"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node(
            "Mul",
            ["product" if also_read else "logits", "largest" if times_largest else "mask"],
            ["query"],
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"])
            for name in ("input_ids", "attention_mask")
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", "t"])
            for name in ("logits", "query")
        ],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.zeros(len(weight), np.float32), "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_product_that_is_read_elsewhere_too_keeps_its_bias_apart(tmp_path: Path) -> None:
    weight = np.diag(np.arange(1, 5)).astype(np.float32)
    for also_read in (False, True):
        model = product(weight, also_read=also_read)
        rounded = quantise(model, [[1, 2, 3, 4]])
        kinds = [node.op_type for node in rounded.graph.node]
        assert ("Add" in kinds) == also_read
        path = tmp_path / "product.onnx"
        onnx.save(rounded, path)
        ids = np.array([[1, 2, 3, 4]], dtype=np.int64)
        for found in run(path, ids, np.ones_like(ids)):
            np.testing.assert_allclose(found, [[1, 4, 9, 16]], rtol=0.02)


def test_the_same_texts_give_the_same_bytes(
    both: tuple[Path, Path, Rounding], tmp_path: Path
) -> None:
    exact, rounded, _ = both
    again = tmp_path / "int8.onnx"
    again.write_bytes(exact.read_bytes())
    quantise_file(again, texts(64, 1), texts(64, 2))
    assert again.read_bytes() == rounded.read_bytes()


def test_a_student_without_layers_has_nothing_to_round(tmp_path: Path) -> None:
    path = exported(tmp_path / "flat.onnx", SIZES.model_copy(update={"layers": 0}))
    with pytest.raises(InvalidConfig, match="no layers") as error:
        quantise_file(path, texts(4, 1), texts(4, 2))
    assert "student.precision" in str(error.value.hint)


def test_a_graph_whose_answers_hang_on_the_batch_is_refused(tmp_path: Path) -> None:
    model = product(np.eye(4, dtype=np.float32), times_largest=True)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    before = path.read_bytes()
    with pytest.raises(CorruptArtifact, match="when a text is alone"):
        quantise_file(path, [[1, 2, 3, 9]], [[1, 2, 3, 4], [4, 3, 2, 9]])
    assert path.read_bytes() == before
