"""The encoder answers the same whatever is encoded beside a text, however much there is of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_release
from tokenizers import Encoding, Tokenizer

from services.platform.errors import CorruptArtifact, IncompatibleArtifacts, InvalidInput
from services.student.bundle import load_bundle
from services.student.encoder import CHARACTERS_A_TOKEN, OnnxEncoder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("encoder") / "bundle"
    tiny_release.write_bundle(directory)
    return directory


def test_results_do_not_depend_on_the_other_texts_of_the_batch(bundle: Path) -> None:
    encoder = OnnxEncoder.of_bundle(load_bundle(bundle), token_budget=64)
    texts = [text for text, _ in tiny_release.sentences(40)]
    texts[3] = "printer " * 50
    texts[4] = "vpn"
    logits, query = encoder.encode(texts)
    assert logits.shape == (40, 3)
    assert query.shape == (40, tiny_release.DIMENSIONS)
    for row, text in enumerate(texts):
        alone_logits, alone_query = encoder.encode([text])
        np.testing.assert_allclose(alone_logits[0], logits[row], atol=1e-4)
        np.testing.assert_allclose(alone_query[0], query[row], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(query, axis=1), 1.0, atol=1e-5)
    assert [int(row.argmax()) for row in logits[5:]] == [n % 3 for n in range(5, 40)]


def test_no_run_of_the_model_holds_more_tokens_than_the_budget(bundle: Path) -> None:
    encoder = OnnxEncoder.of_bundle(load_bundle(bundle), token_budget=64)
    tokens = encoder.tokenize(["my printer"] * 100 + ["printer " * 50] * 10)
    batches = list(encoder._batches(tokens))
    sizes = [max(len(tokens[row].ids) for row in rows) * len(rows) for rows in batches]
    assert max(sizes) <= 64
    assert sorted(row for rows in batches for row in rows) == list(range(110))


def test_long_texts_are_cut_on_the_side_asked_for_and_say_so(bundle: Path) -> None:
    encoder = OnnxEncoder.of_bundle(load_bundle(bundle))
    text = "printer " * 30 + "vpn " * 30
    (right,) = encoder.tokenize([text], direction="right")
    (left,) = encoder.tokenize([text], direction="left")
    (short,) = encoder.tokenize(["my printer"])
    assert len(right.ids) == len(left.ids) == tiny_release.MAX_TOKENS
    assert (right.truncated, left.truncated, short.truncated) == (True, True, False)
    printer, vpn = (tiny_release.VOCABULARY.index(word) for word in ("printer", "vpn"))
    assert vpn not in right.ids
    assert printer not in left.ids
    assert right.ids[0] == left.ids[0] == 2
    assert right.ids[-1] == left.ids[-1] == 3


def test_a_text_of_megabytes_is_cut_before_it_costs_anything(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    tokenize = Tokenizer.encode_batch_fast

    class Seeing:
        """A tokenizer that notes how long its texts are."""

        def __init__(self, tokenizer: Tokenizer) -> None:
            self._tokenizer = tokenizer

        def encode_batch_fast(self, inputs: list[str]) -> list[Encoding]:
            seen.extend(map(len, inputs))
            return tokenize(self._tokenizer, inputs)

    encoder = OnnxEncoder.of_bundle(load_bundle(bundle))
    for side, tokenizer in encoder._tokenizers.items():
        monkeypatch.setitem(encoder._tokenizers, side, Seeing(tokenizer))
    text = "printer " * 250_000 + "vpn " * 250_000
    (right,) = encoder.tokenize([text], direction="right")
    (left,) = encoder.tokenize([text], direction="left")
    (word,) = encoder.tokenize(["x" * 1_000_000])
    assert max(seen) == CHARACTERS_A_TOKEN * encoder.max_tokens
    assert (right, left) == tuple(
        encoder.tokenize([part])[0] for part in ("printer " * 30, "vpn " * 30)
    )
    assert word.truncated


def test_spaces_are_no_reason_to_cut_a_text(bundle: Path) -> None:
    encoder = OnnxEncoder.of_bundle(load_bundle(bundle))
    spaces = " \n" * 40 * encoder.max_tokens
    said, plain = encoder.tokenize([f"{spaces}printer{spaces}vpn{spaces}", "printer vpn"])
    assert (said.ids, said.truncated) == (plain.ids, False)


def test_a_tokenizer_without_special_tokens_is_refused(bundle: Path, tmp_path: Path) -> None:
    content = json.loads((bundle / "tokenizer.json").read_text())
    content["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CorruptArtifact, match="no special tokens"):
        OnnxEncoder(bundle / "model.onnx", tmp_path / "tokenizer.json", max_tokens=8)


def test_pairs_are_one_sequence_and_must_be_given_exactly_where_the_task_has_them(
    bundle: Path, tmp_path: Path
) -> None:
    tiny_release.write_bundle(tmp_path / "pairs", pair=True)
    pairs = OnnxEncoder.of_bundle(load_bundle(tmp_path / "pairs"))
    (tokens,) = pairs.tokenize(["printer"], ["vpn slow"])
    assert tokens.ids.count(3) == 2
    with pytest.raises(InvalidInput, match="pairs of texts"):
        pairs.encode(["printer"])
    with pytest.raises(InvalidInput, match="single texts"):
        OnnxEncoder.of_bundle(load_bundle(bundle)).encode(["printer"], ["vpn"])


def test_nothing_in_nothing_out(bundle: Path) -> None:
    logits, query = OnnxEncoder.of_bundle(load_bundle(bundle)).encode([])
    assert (logits.shape, query.shape) == ((0, 3), (0, tiny_release.DIMENSIONS))


def test_files_that_are_no_model_or_no_tokenizer_are_corrupt(bundle: Path, tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(b"rubbish")
    with pytest.raises(CorruptArtifact, match="ONNX Runtime"):
        OnnxEncoder(rubbish, bundle / "tokenizer.json", max_tokens=8)
    with pytest.raises(CorruptArtifact, match="tokenizer"):
        OnnxEncoder(bundle / "model.onnx", rubbish, max_tokens=8)


def test_a_model_of_another_width_than_its_manifest_says_is_refused(tmp_path: Path) -> None:
    tiny_release.write_bundle(tmp_path / "bundle")
    path = tmp_path / "bundle" / "bundle.json"
    path.write_text(path.read_text().replace('"dimensions": 8', '"dimensions": 9'))
    with pytest.raises(IncompatibleArtifacts, match="8 dimensions"):
        OnnxEncoder.of_bundle(load_bundle(tmp_path / "bundle"))
