"""Students that start from encoders of several families, with their kinds of tokenizers."""

import string
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    CanineConfig,
    CanineTokenizer,
    PreTrainedTokenizerFast,
)

from offline.student.beginning import Beginning, begin
from offline.student.config import StudentConfig
from offline.student.export import export_onnx
from offline.student.items import TrainingItems
from offline.student.network import StudentNetwork, parameter_count
from offline.student.quantisation import quantise_file
from offline.student.retrieval_loss import RetrievalConfig
from offline.student.starting_encoder import StudentEncoderConfig, load_starting_encoder
from offline.student.training import TrainingConfig, padded, train_student
from offline.teacher.pretrained import PACKAGED
from services.platform.errors import InvalidConfig, ModelNotFound
from services.student.encoder import OnnxEncoder

FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta")
PRUNED = ("bert", "distilbert")
TEXTS = [
    "the printer is out of paper",
    "my password does not work",
    "printer",
    "the network is very slow today, and nobody knows why it is so slow",
    "a new password for the network printer, please",
    "paper jam!",
]
PAIRS = TEXTS[::-1]
MAX_TOKENS = 24
WIDE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 40,
}  # fmt: skip
TALL = {"dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4, "max_position_embeddings": 40}


def word_pieces() -> PreTrainedTokenizerFast:
    """BERT's kind, but with the padding token at another id."""
    letters = string.ascii_lowercase + string.digits + string.punctuation
    words = {"zebra", "quartz", *" ".join(TEXTS).replace(",", "").replace("!", "").split()}
    pieces = [*letters, *(f"##{letter}" for letter in letters), *sorted(words - set(letters))]
    names = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "[PAD]", *pieces]
    tokenizer = Tokenizer(
        WordPiece({name: place for place, name in enumerate(names)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", pad_token="[PAD]",
    )  # fmt: skip


def whole_tokens(kind: str, *, framed: bool = True) -> PreTrainedTokenizerFast:
    """RoBERTa's byte-level pairs, or XLM-R's pieces; the padding token is 1."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if kind == "roberta":
        tokenizer = Tokenizer(BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: Any = BpeTrainer(
            vocab_size=350, special_tokens=special, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
    else:
        tokenizer = Tokenizer(Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = UnigramTrainer(
            vocab_size=80, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if framed:
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), add_prefix_space=False
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", cls_token="<s>", eos_token="</s>",
        sep_token="</s>", unk_token="<unk>", pad_token="<pad>", mask_token="<mask>",
    )  # fmt: skip


def save_tiny(kind: str, directory: Path, **changed: Any) -> Path:
    """Random weights, larger than at the start of training, so that a wrong mask or position would show."""
    tokenizer = word_pieces() if kind in PRUNED else whole_tokens(kind)
    settings = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
        **{**(TALL if kind == "distilbert" else WIDE), **changed},
    )
    torch.manual_seed(0)
    AutoModel.from_config(settings).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Finds the directory of a tiny encoder of a family."""
    root = tmp_path_factory.mktemp("encoders")

    def find(kind: str) -> Path:
        return root / kind if (root / kind).exists() else save_tiny(kind, root / kind)

    return find


def config(model: Path | str, layers: int | None = 2, **limits: Any) -> StudentConfig:
    return StudentConfig.model_validate(
        {
            "encoder": {"model": str(model), "layers": layers, "learning_rate": 1e-3},
            "shape": {"query": 8, "max_tokens": MAX_TOKENS},
            "max_share": 1.0,
            **limits,
        }
    )


def begun(settings: StudentConfig, labeller_parameters: int = 200_000) -> Beginning:
    labeller: Any = SimpleNamespace(parameters=labeller_parameters)
    return begin(labeller, TEXTS, 3, settings)


class Trained(NamedTuple):
    kind: str
    beginning: Beginning
    model: StudentNetwork
    model_file: Path
    tokenizer_file: Path

    def encoder(self, *, pair: bool = False) -> OnnxEncoder:
        return OnnxEncoder(self.model_file, self.tokenizer_file, max_tokens=MAX_TOKENS, pair=pair)


@pytest.fixture(scope="module", params=FAMILIES)
def trained(
    request: pytest.FixtureRequest,
    tiny: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    """A few steps, so that no weight is what it was, then exported."""
    beginning = begun(config(tiny(request.param)))
    model = beginning.make(dropout=0.1, seed=0)
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(len(TEXTS), 12)).astype(np.float32)
    items = TrainingItems(
        TEXTS,
        None,
        random.dirichlet(np.ones(3), len(TEXTS)).astype(np.float32),
        embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
    )
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    train_student(
        model,
        beginning.vocabulary.encode(TEXTS, None, MAX_TOKENS),
        items,
        TrainingConfig(steps=6, batch_size=6, warm_up=1, learning_rate=1e-2),
        RetrievalConfig(candidates=4),
        seed=0,
        report=lambda *_: None,
    )
    same = [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])]
    assert not same, "every weight that counts is trained"
    root = tmp_path_factory.mktemp(request.param)
    assert export_onnx(model, root / "model.onnx") < 1e-4
    beginning.vocabulary.save(root / "tokenizer.json")
    return Trained(request.param, beginning, model, root / "model.onnx", root / "tokenizer.json")


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_student_begins_as_the_encoder_reads_with_its_own_tokens_and_padding(
    tiny: Callable[[str], Path], kind: str
) -> None:
    original = AutoModel.from_pretrained(tiny(kind), num_hidden_layers=2).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny(kind))
    beginning = begun(config(tiny(kind)))
    model = beginning.make(dropout=0.1, seed=0).eval()
    for pairs in (None, PAIRS):
        batch = tokenizer(
            TEXTS, pairs, padding=True, truncation=True, max_length=MAX_TOKENS,
            return_tensors="pt", return_token_type_ids=False,
        )  # fmt: skip
        ids = beginning.vocabulary.encode(TEXTS, pairs, MAX_TOKENS)
        assert [len(row) for row in ids] == batch["attention_mask"].sum(1).tolist()
        with torch.inference_mode():
            hidden = original(**batch).last_hidden_state
            found = model.outputs(*padded(ids)).pooled
        kept = batch["attention_mask"].unsqueeze(-1)
        torch.testing.assert_close(found, (hidden * kept).sum(1) / kept.sum(1), rtol=0, atol=1e-5)


def test_a_served_student_answers_as_torch_does_whoever_else_is_in_the_batch(
    trained: Trained,
) -> None:
    for pairs in (None, PAIRS):
        encoder = trained.encoder(pair=pairs is not None)
        ids = trained.beginning.vocabulary.encode(TEXTS, pairs, MAX_TOKENS)
        assert [item.ids for item in encoder.tokenize(TEXTS, pairs)] == ids
        found = encoder.encode(TEXTS, pairs)
        with torch.inference_mode():
            expected = trained.model(*padded(ids))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), atol=1e-4)
        for row, text in enumerate(TEXTS):
            alone = encoder.encode([text], None if pairs is None else [pairs[row]])
            for one, other in zip(alone, found, strict=True):
                np.testing.assert_allclose(one[0], other[row], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found[1], axis=1), 1, atol=1e-5)


def test_what_stands_in_the_padding_does_not_matter(trained: Trained) -> None:
    ids, mask = padded(trained.beginning.vocabulary.encode(TEXTS, None, MAX_TOKENS))
    other = torch.where(mask == 0, 5, ids)
    with torch.inference_mode():
        for one, another in zip(trained.model(ids, mask), trained.model(other, mask), strict=True):
            assert torch.equal(one, another)


def test_the_file_holds_as_many_weights_as_are_counted(trained: Trained) -> None:
    graph = onnx.load(trained.model_file).graph
    weights = sum(
        int(np.prod(part.dims))
        for part in graph.initializer
        if part.data_type == onnx.TensorProto.FLOAT and np.prod(part.dims) > 1
    )
    scalars = sum(weight.numel() == 1 for weight in trained.model.parameters())
    assert weights + scalars == parameter_count(trained.model)


def test_in_8_bits_it_answers_nearly_alike_and_a_text_alone_as_beside_others(
    trained: Trained, tmp_path: Path
) -> None:
    rounded = tmp_path / "int8.onnx"
    rounded.write_bytes(trained.model_file.read_bytes())
    ids = trained.beginning.vocabulary.encode([*TEXTS, *PAIRS], None, MAX_TOKENS)
    told = quantise_file(rounded, ids, ids)
    graph = onnx.load(rounded).graph
    constants = {value.name for value in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert not [node.name for node in products if node.input[1] in constants]
    # Queries, keys, values and output of two layers, and their feed-forward parts.
    assert sum(node.op_type == "MatMulIntegerToFloat" for node in graph.node) >= 12
    assert told.cosine > 0.98
    exact = trained.encoder().encode(TEXTS)[0]
    encoder = OnnxEncoder(rounded, trained.tokenizer_file, max_tokens=MAX_TOKENS)
    np.testing.assert_allclose(encoder.encode(TEXTS)[0], exact, atol=0.2)
    assert (encoder.encode(TEXTS)[0] != exact).any()
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(
            encoder.encode([text])[0][0], encoder.encode(TEXTS)[0][row], atol=1e-4
        )


def test_only_word_pieces_are_pruned(trained: Trained, tiny: Callable[[str], Path]) -> None:
    tokens = trained.beginning.vocabulary.tokens
    there = set(AutoTokenizer.from_pretrained(tiny(trained.kind)).get_vocab())
    assert set(tokens) <= there
    if trained.kind in PRUNED:
        assert "printer" in tokens
        assert "zebra" not in tokens
    else:
        assert set(tokens) == there
    assert trained.model.vocabulary == len(tokens)


def test_the_same_seed_gives_the_same_student_and_the_encoder_is_not_changed(
    tiny: Callable[[str], Path],
) -> None:
    beginning = begun(config(tiny("bert")))
    one = beginning.make(dropout=0.0, seed=1)
    with torch.no_grad():
        for weight in one.parameters():
            weight.zero_()
    again, other = (beginning.make(dropout=0.0, seed=seed) for seed in (1, 2))
    states = again.state_dict(), begun(config(tiny("bert"))).make(dropout=0.0, seed=1).state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(again.state_dict()["head.weight"], other.state_dict()["head.weight"])


def test_layers_are_cut(tiny: Callable[[str], Path]) -> None:
    few, more, every = (
        parameter_count(begun(config(tiny("bert"), layers)).make(dropout=0.0, seed=0))
        for layers in (1, 2, None)
    )
    assert every - more == more - few > 0
    with pytest.raises(InvalidConfig, match="layers is 4, .* has 3 layers"):
        begun(config(tiny("bert"), 4))


def test_a_limit_too_low_tells_what_to_raise(tiny: Callable[[str], Path]) -> None:
    """The number that is told is enough, and keeps all tokens of the texts."""
    for kind in ("bert", "roberta"):
        settings = config(tiny(kind), max_share=0.03)
        with pytest.raises(InvalidConfig, match="6,000 is the limit") as raised:
            begun(settings)
        hint = str(raised.value.hint)
        assert hint.startswith("Raise student.max_share to 0.")
        share = float(hint.split(" to ")[1].split(",")[0])
        enough = begun(settings.model_copy(update={"max_share": share}))
        count = parameter_count(enough.make(dropout=0.0, seed=0))
        assert count <= share * 200_000 < count + 300
        with pytest.raises(InvalidConfig, match="is the limit") as raised:
            begun(config(tiny(kind), max_parameters=7_000))
        assert f"student.max_parameters to {count}" in str(raised.value.hint)


def test_a_low_limit_costs_tokens_first(tiny: Callable[[str], Path]) -> None:
    everything = parameter_count(begun(config(tiny("bert"))).make(dropout=0.0, seed=0))
    fewer = begun(config(tiny("bert"), max_parameters=everything - 100))
    assert parameter_count(fewer.make(dropout=0.0, seed=0)) == everything - 4 * 32


@pytest.mark.parametrize(("kind", "most"), [("bert", 40), ("roberta", 38)])
def test_more_tokens_than_the_encoder_has_positions_are_refused(
    tiny: Callable[[str], Path], kind: str, most: int
) -> None:
    start = StudentEncoderConfig(model=str(tiny(kind)))
    load_starting_encoder(start, most)
    with pytest.raises(InvalidConfig, match=f"has positions for {most} tokens"):
        load_starting_encoder(start, most + 1)


@pytest.mark.parametrize(
    ("kind", "why"), [("gpt2", "from left to right"), ("t5", "a decoder beside its encoder")]
)
def test_decoders_and_encoder_decoders_are_refused(
    reading_directory: Callable[[str], Path], kind: str, why: str
) -> None:
    with pytest.raises(InvalidConfig, match=why):
        begun(config(reading_directory(kind)))


def test_a_model_of_something_else_than_texts_is_refused(tmp_path: Path) -> None:
    images = save_tiny("bert", tmp_path)
    sizes = {**WIDE, "image_size": 16, "patch_size": 8}
    sizes.pop("max_position_embeddings")
    AutoModel.from_config(AutoConfig.for_model("vit", **sizes)).save_pretrained(images)
    with pytest.raises(InvalidConfig, match="'vit', which does not read token ids"):
        begun(config(images))


def test_a_tokenizer_that_the_server_cannot_read_is_refused(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    CanineConfig().save_pretrained(slow)
    CanineTokenizer().save_pretrained(slow)
    (slow / "model.safetensors").write_bytes((tiny("bert") / "model.safetensors").read_bytes())
    with pytest.raises(InvalidConfig, match="CanineTokenizer in Python"):
        begun(config(slow))
    unframed = save_tiny("roberta", tmp_path / "unframed")
    whole_tokens("roberta", framed=False).save_pretrained(unframed)
    with pytest.raises(InvalidConfig, match="no special tokens round a text"):
        begun(config(unframed))


def test_a_model_that_is_not_there_or_lacks_weights_is_not_found(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelNotFound, match="does not exist"):
        begun(config(tmp_path / "none"))
    cut = save_tiny("bert", tmp_path / "cut")
    (cut / "config.json").write_text(
        (cut / "config.json")
        .read_text()
        .replace('"num_hidden_layers": 3', '"num_hidden_layers": 4')
    )
    with pytest.raises(ModelNotFound, match="lacks encoder.layer.3"):
        begun(config(cut, None))
    (cut / "tokenizer.json").unlink()
    assert (cut / "tokenizer_config.json").is_file()
    with pytest.raises(ModelNotFound, match="no tokenizer file"):
        begun(config(cut))


def test_the_packaged_encoder_cut_to_two_layers_fits_a_share_of_its_own_parameters() -> None:
    beginning = begun(config(PACKAGED, max_share=0.2), labeller_parameters=22_713_216)
    model = beginning.make(dropout=0.0, seed=0)
    assert parameter_count(model) < 4_000_000
    assert beginning.encoder is not None
    assert (beginning.encoder["layers"], beginning.encoder["of_layers"]) == (2, 6)
