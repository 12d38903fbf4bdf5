"""Dense layers of an exported student in 8 bits, with ranges that are fixed beforehand.

Weights are symmetric with a scale a column, activations asymmetric with the range that they had over a sample of texts
(static quantisation; Jacob et al. 2018): nothing hangs on the other rows of a batch, as it would with ranges that
are taken at run time. Products are summed in 32 bits and come out as floats, bias added: only what goes in is rounded.
ONNX Runtime's own tool rounds what comes out too, and leaves the attention's projections as they are.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from offline.student.training import padded
from services.platform.errors import CorruptArtifact, InvalidConfig

WEIGHT_LEVELS = 63
"""Weights lie within ±63: processors without VNNI add two products in 16 bits, which 7 bits cannot overflow, so
that all give the same answers."""
ACTIVATION_LEVELS = 255

INDEPENDENT = 1e-4
"""How far a text's results may differ with the texts beside it."""

_CONTRIB = "com.microsoft"
_OUTPUTS = ("logits", "query")
_BESIDE = 16

Arrays = dict[str, NDArray[Any]]


class Rounding(NamedTuple):
    """What rounding changes, over a sample of texts.

    Attributes:
        texts: how many there were.
        logits: largest difference of a class score.
        cosine: smallest cosine of a query vector with what it was.
        same_label: share of texts whose best class score is of the same label.
    """

    texts: int
    logits: float
    cosine: float
    same_label: float


def quantise_file(
    path: Path, calibrated_on: Sequence[Sequence[int]], compared_on: Sequence[Sequence[int]]
) -> Rounding:
    """Round the dense layers of an exported student in place, and say what that changes.

    Args:
        path: of the ONNX file.
        calibrated_on: token ids of texts, to take the ranges of activations from.
        compared_on: token ids of at least one text, to compare both forms on.

    Raises:
        InvalidConfig: there is nothing to round.
        CorruptArtifact: a text's results hang on the texts beside it.
    """
    exact = onnx.load(path)
    rounded = quantise(exact, calibrated_on)
    sessions = [_session(model) for model in (exact, rounded)]
    before, after = ([_run(session, [ids]) for ids in compared_on] for session in sessions)
    for start in range(0, len(compared_on), _BESIDE):
        rows = slice(start, start + _BESIDE)
        together = _run(sessions[1], compared_on[rows])
        for output, values in enumerate(together):
            alone = np.concatenate([found[output] for found in after[rows]])
            worst = float(np.abs(values - alone).max())
            if not worst <= INDEPENDENT:
                raise CorruptArtifact(
                    f"The rounded student's {_OUTPUTS[output]} differ by {worst:.2e} when a text is alone; "
                    f"at most {INDEPENDENT} was expected."
                )
    onnx.save(rounded, path)
    logits, new_logits = (np.concatenate([found[0] for found in both]) for both in (before, after))
    queries, new_queries = (
        np.concatenate([found[1] for found in both]) for both in (before, after)
    )
    return Rounding(
        texts=len(compared_on),
        logits=float(np.abs(logits - new_logits).max()),
        cosine=float((queries * new_queries).sum(1).min()),
        same_label=float((logits.argmax(1) == new_logits.argmax(1)).mean()),
    )


def _session(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _run(
    session: onnxruntime.InferenceSession,
    sequences: Sequence[Sequence[int]],
    names: Sequence[str] = _OUTPUTS,
) -> list[NDArray[np.float32]]:
    ids, mask = (part.numpy() for part in padded(sequences))
    found: list[NDArray[np.float32]] = session.run(
        names, {"input_ids": ids, "attention_mask": mask}
    )
    return found


def quantise(model: ModelProto, sequences: Sequence[Sequence[int]]) -> ModelProto:
    """The same graph with its dense layers in 8 bits.

    Args:
        model: an exported student in fp32. Its products with constant matrices (`MatMul`) and its operators
            `Attention` are replaced, that of a token's importance in pooling included; the small ones of head and query
            vector (`Gemm`) stay.
        sequences: token ids of texts, to take the ranges from.

    Raises:
        InvalidConfig: the graph has no such layer.
    """
    graph = model.graph
    constants: Arrays = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    dense = [node for node in graph.node if _is_dense(node, constants)]
    if not dense:
        raise InvalidConfig(
            "The student has no layers whose weights could be rounded to 8 bits.",
            hint="Set student.precision to fp32.",
        )
    scales = _scales(model, sorted({node.input[0] for node in dense}), sequences)
    biases = _biases(graph, dense, constants)
    added: Arrays = {}
    nodes = list(_rewritten(graph.node, constants, scales, biases, added))
    quantised = ModelProto()
    quantised.CopyFrom(model)
    del quantised.graph.node[:], quantised.graph.initializer[:], quantised.graph.value_info[:]
    quantised.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    quantised.graph.initializer.extend(value for value in graph.initializer if value.name in read)
    quantised.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in added.items()
    )
    if all(opset.domain != _CONTRIB for opset in model.opset_import):
        quantised.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
    return quantised


def _is_dense(node: NodeProto, constants: Mapping[str, NDArray[Any]]) -> bool:
    if node.op_type not in ("MatMul", "Attention"):
        return False
    matrix = constants.get(node.input[1])
    return matrix is not None and matrix.ndim == 2


def _scales(
    model: ModelProto, names: Sequence[str], sequences: Sequence[Sequence[int]]
) -> dict[str, tuple[np.float32, np.uint8]]:
    """Scale and zero point of each tensor, from its smallest and largest value over the texts."""
    watched = ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    session = _session(watched)
    low, high = np.zeros(len(names)), np.zeros(len(names))
    for sequence in sequences:
        found = _run(session, [sequence], names)
        low = np.minimum(low, [values.min() for values in found])
        high = np.maximum(high, [values.max() for values in found])
    widths = np.maximum(high - low, 1e-6) / ACTIVATION_LEVELS
    return {
        name: (np.float32(width), np.uint8(np.rint(-smallest / width)))
        for name, smallest, width in zip(names, low, widths, strict=True)
    }


def _biases(
    graph: onnx.GraphProto,
    dense: Sequence[NodeProto],
    constants: Mapping[str, NDArray[Any]],
) -> dict[str, tuple[str, str]]:
    """Of each product that is read by the addition of a bias alone: the bias, and the addition's output."""
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    products = {node.output[0] for node in dense if node.op_type == "MatMul"}
    found: dict[str, tuple[str, str]] = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for product, bias in (node.input, reversed(node.input)):
            vector = constants.get(bias)
            if product in products and readers[product] == 1 and getattr(vector, "ndim", 0) == 1:
                found[product] = (bias, node.output[0])
    return found


def _rewritten(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, NDArray[Any]],
    scales: Mapping[str, tuple[np.float32, np.uint8]],
    biases: Mapping[str, tuple[str, str]],
    added: Arrays,
) -> Iterator[NodeProto]:
    absorbed = {output for _, output in biases.values()}
    rounded: set[str] = set()
    for node in nodes:
        if not _is_dense(node, constants):
            if node.op_type != "Add" or node.output[0] not in absorbed:
                yield node
            continue
        values, matrix = node.input[:2]
        scale, zero = f"{values}_scale", f"{values}_zero"
        if values not in rounded:
            rounded.add(values)
            added[scale], added[zero] = map(np.asarray, scales[values])
            yield helper.make_node("QuantizeLinear", [values, scale, zero], [f"{values}_uint8"])
        weights, weight_scale, weight_zero = (
            f"{matrix}_{part}" for part in ("int8", "scale", "zero")
        )
        added[weights], added[weight_scale] = _rounded(constants[matrix])
        added[weight_zero] = np.zeros_like(added[weight_scale], dtype=np.int8)
        read = f"{values}_uint8"
        if node.op_type == "Attention":
            bias, mask = node.input[2:4]
            inputs = [read, weights, bias, scale, weight_scale, mask, zero, weight_zero]
            new = helper.make_node("QAttention", inputs, node.output, domain=_CONTRIB)
            new.attribute.extend(node.attribute)
        else:
            inputs = [read, weights, scale, weight_scale, zero, weight_zero]
            bias, output = biases.get(node.output[0], ("", node.output[0]))
            new = helper.make_node(
                "MatMulIntegerToFloat", [*inputs, bias], [output], domain=_CONTRIB
            )
        yield new


def _rounded(
    matrix: NDArray[Any],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(in, out) whole numbers and their (out,) scales."""
    largest = np.abs(matrix).max(axis=0)
    scales = (np.where(largest > 0, largest, 1.0) / WEIGHT_LEVELS).astype(np.float32)
    return np.rint(matrix / scales).astype(np.int8), scales
