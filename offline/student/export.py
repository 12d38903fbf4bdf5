"""Export to ONNX, checked against torch before anything is written in its place."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from offline.student.network import StudentNetwork
from services.platform.errors import CorruptArtifact

OPSET = 20
TOLERANCE = 1e-4
# Batch sizes and lengths that the check runs, beside the longest sequence.
_CHECKED = ((1, 1), (1, 7), (3, 2), (5, 16), (17, 9))


def export_onnx(model: StudentNetwork, path: Path, *, seed: int = 0) -> float:
    """Write `model` as an ONNX file with free batch and sequence lengths.

    Args:
        model: the student; it is left in evaluation mode.
        path: of the file.
        seed: of the ids that the check feeds.

    Returns:
        The largest difference from torch that the check saw.

    Raises:
        CorruptArtifact: the network cannot be exported, or ONNX Runtime's results are further than 1e-4
            from torch's, for some batch size or length, or depend on the padding beside a text.
    """
    model.eval()
    ids = torch.ones((2, 5), dtype=torch.int64)
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                (ids, torch.ones_like(ids)),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=["input_ids", "attention_mask"],
                output_names=["logits", "query"],
                dynamic_shapes={
                    name: {0: batch, 1: tokens} for name in ("input_ids", "attention_mask")
                },
            )
    except torch.onnx.OnnxExporterError as error:
        # The exporter's own message is advice on torch; what went wrong is its cause.
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise CorruptArtifact(
            f"The student cannot be exported to ONNX: {reason}",
            hint="Where it starts from an encoder, name another one under student.encoder.model.",
        ) from error
    if program is None:
        raise CorruptArtifact("The export of the student to ONNX gave no program.")
    proto = program.model_proto
    _strip(proto)
    onnx.save(proto, path)
    return _check(model, path, seed)


def _strip(proto: onnx.ModelProto) -> None:
    """Take out stack traces and paths: the same student gives the same bytes everywhere."""
    proto.doc_string = ""
    del proto.metadata_props[:]
    for holder in (
        proto.graph,
        *proto.graph.node,
        *proto.graph.value_info,
        *proto.graph.initializer,
    ):
        holder.doc_string = ""
        del holder.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]


def _check(model: StudentNetwork, path: Path, seed: int) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    random = np.random.default_rng(seed)
    worst = 0.0
    for rows, length in (*_CHECKED, (2, model.max_tokens)):
        ids = random.integers(0, model.vocabulary, size=(rows, length))
        mask = np.ones_like(ids)
        for row in range(1, rows):
            mask[row, random.integers(1, length + 1) :] = 0
        with torch.inference_mode():
            expected = model(torch.from_numpy(ids), torch.from_numpy(mask))
        found = session.run(["logits", "query"], {"input_ids": ids, "attention_mask": mask})
        # NumPy's, as Python's own leaves NaN aside.
        distances = [_distance(*both) for both in zip(found, expected, strict=True)]
        worst = float(np.max([worst, *distances]))
        last = int(mask[-1].sum())
        alone = session.run(
            ["logits", "query"],
            {"input_ids": ids[-1:, :last], "attention_mask": mask[-1:, :last]},
        )
        beside = float(
            np.max([np.abs(a[0] - b[-1]).max() for a, b in zip(alone, found, strict=True)])
        )
        if not (worst <= TOLERANCE and beside <= TOLERANCE):
            raise CorruptArtifact(
                f"The exported student differs from torch by {worst:.2e}, and by {beside:.2e} when a "
                f"text is alone (batch {rows}, length {length}); at most {TOLERANCE} was expected."
            )
    return worst


def _distance(found: np.ndarray, expected: torch.Tensor) -> float:
    return float(np.abs(found - expected.numpy()).max())


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own internals and logs operators of packages that are not there."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
