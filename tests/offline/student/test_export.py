import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from offline.student.export import TOLERANCE, export_onnx
from offline.student.model import (
    ShapeConfig,
    Student,
    StudentShape,
    affordable_tokens,
)
from offline.student.network import Outputs, parameter_count
from services.platform.errors import CorruptArtifact, InvalidConfig

SIZES = ShapeConfig(
    vocabulary=70,
    coded=50,
    codes=4,
    embedding=12,
    hidden=16,
    layers=2,
    heads=2,
    feed_forward=24,
    query=8,
    max_tokens=40,
)


def student(seed: int = 0) -> Student:
    torch.manual_seed(seed)
    model = Student(StudentShape(120, 70, 5, SIZES), dropout=0.1)
    # Larger than at the start of training, so that a wrong mask would show.
    with torch.no_grad():
        model.tokens.codes.random_(0, 256)
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Student, Path]:
    model, path = student(), tmp_path_factory.mktemp("export") / "model.onnx"
    assert export_onnx(model, path) < 1e-4
    return model, path


def run(path: Path, ids: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(
        ["logits", "query"], {"input_ids": ids, "attention_mask": mask}
    )
    return found


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (2, 3), (7, 40), (33, 11)])
def test_onnx_equals_torch_at_any_batch_size_and_length(
    exported: tuple[Student, Path], rows: int, length: int
) -> None:
    model, path = exported
    random = np.random.default_rng(rows)
    ids = random.integers(0, 120, size=(rows, length))
    mask = (np.arange(length) < random.integers(1, length + 1, size=(rows, 1))).astype(np.int64)
    with torch.inference_mode():
        expected = model(torch.from_numpy(ids), torch.from_numpy(mask))
    for one, other in zip(run(path, ids, mask), expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-4)


def test_an_answer_does_not_depend_on_who_else_is_in_the_batch(
    exported: tuple[Student, Path],
) -> None:
    _, path = exported
    random = np.random.default_rng(0)
    alone = random.integers(0, 120, size=(1, 6))
    beside = random.integers(0, 120, size=(9, 30))
    mask = np.ones_like(beside)
    # The padding is not the padding token: what it holds must not matter.
    beside[4, :6], mask[4, 6:] = alone, 0
    expected = run(path, alone, np.ones_like(alone))
    found = run(path, beside, mask)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one[0], other[4], atol=1e-5)


def test_the_same_student_gives_the_same_bytes_without_paths(
    exported: tuple[Student, Path], tmp_path: Path
) -> None:
    _, path = exported
    export_onnx(student(), tmp_path / "model.onnx")
    written = path.read_bytes()
    assert (tmp_path / "model.onnx").read_bytes() == written
    assert b"site-packages" not in written
    assert str(Path.cwd()).encode() not in written


def test_an_export_that_differs_is_refused(tmp_path: Path) -> None:
    class Unmasked(Student):
        """Its mean takes padding in, so that batches change answers."""

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            everything = torch.ones_like(attention_mask) + 0 * attention_mask
            return super().forward(input_ids, everything)

    torch.manual_seed(0)
    model = Unmasked(StudentShape(120, 70, 5, SIZES))
    with pytest.raises(CorruptArtifact, match="when a text is alone") as raised:
        export_onnx(model, tmp_path / "model.onnx")
    # As torch has it, but another answer beside others than alone.
    differs, beside = map(float, re.findall(r"by (\S+?),? (?:and|when)", str(raised.value)))
    assert differs <= TOLERANCE < beside


def test_an_export_of_no_numbers_is_refused(tmp_path: Path) -> None:
    model = student()
    with torch.no_grad():
        model.head.bias.fill_(torch.nan)
    with pytest.raises(CorruptArtifact, match="differs from torch by nan"):
        export_onnx(model, tmp_path / "model.onnx")


def test_a_network_that_cannot_be_exported_is_told_of(tmp_path: Path) -> None:
    class Undecided(Student):
        """What it computes hangs on the ids themselves, which a graph cannot hold."""

        def outputs(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Outputs:
            if input_ids.sum() > 3:
                input_ids = input_ids + 0
            return super().outputs(input_ids, attention_mask)

    model = Undecided(StudentShape(120, 70, 5, SIZES))
    with pytest.raises(CorruptArtifact, match="cannot be exported to ONNX: Could not guard"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_the_affordable_vocabulary_fills_the_limit_and_no_more() -> None:
    for codes in (0, 2, 4):
        sizes = SIZES.model_copy(update={"vocabulary": 30_000, "codes": codes})
        further = sizes.coded if codes else 0
        own = affordable_tokens(sizes, 5, 40_000)
        one, more = (
            parameter_count(Student(StudentShape(count + further, count, 5, sizes)))
            for count in (own, own + 1)
        )
        assert one <= 40_000 < more


def test_four_codes_count_as_one_weight() -> None:
    few, more = (
        parameter_count(Student(StudentShape(tokens, 70, 5, SIZES))) for tokens in (120, 220)
    )
    assert more - few == 100 * SIZES.codes // 4


def test_no_more_tokens_are_kept_than_asked_for() -> None:
    assert affordable_tokens(SIZES, 5, 40_000) == SIZES.vocabulary


def test_layers_above_the_limit_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="1,000 is the limit"):
        affordable_tokens(SIZES, 5, 1_000)
