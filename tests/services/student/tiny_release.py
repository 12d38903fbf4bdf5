"""A tiny real release: an ONNX student of a few words, its knowledge file, its soft labels.

Nothing is trained: each word's embedding leans towards the label that it belongs to. Another seed
gives another encoder, and so another fingerprint, store version and release.
"""

from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from services.releases.manifest import ReleaseManifest, write_release_manifest
from services.store.knowledge_file import (
    Knowledge,
    KnowledgeMetadata,
    fixed_lists,
    version_manifest,
    write_knowledge,
)
from services.student.bundle import BundleManifest, load_bundle, write_bundle_manifest
from services.student.encoder import OnnxEncoder
from services.student.mixing import MixingParameters

WORDS = {
    "login": ("password", "login", "locked", "account", "reset", "forgot"),
    "printer": ("printer", "paper", "toner", "jam", "print", "pages"),
    "network": ("wifi", "network", "vpn", "slow", "offline", "cable"),
}
LABELS = tuple(WORDS)
NEUTRAL = ("my", "the", "is", "please", "help", "with", "again", "not")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
VOCABULARY = (*SPECIAL, *(word for words in WORDS.values() for word in words), *NEUTRAL)
WIDTH = 16
DIMENSIONS = 8
MAX_TOKENS = 24
TASK = "tiny"


def write_bundle(
    directory: Path,
    *,
    seed: int = 0,
    pair: bool = False,
    distance_threshold: float | None = None,
    lexical: bool = False,
) -> BundleManifest:
    """A student bundle whose labels are `LABELS`; `lexical` for one that answers with a lexical index."""
    directory.mkdir(parents=True)
    _write_tokenizer(directory / "tokenizer.json")
    _write_model(directory / "model.onnx", seed)
    return write_bundle_manifest(
        directory,
        task=TASK,
        pair=pair,
        labels=LABELS,
        label_names=[f"about the {label}" for label in LABELS],
        dimensions=DIMENSIONS,
        max_tokens=MAX_TOKENS,
        parameters=len(VOCABULARY) * WIDTH + WIDTH * (len(LABELS) + DIMENSIONS),
        mixing=MixingParameters(
            k=4, similarity_temperature=0.1, lexical_share=0.5 if lexical else 0.0
        ),
        trained_with={"note": "a few words"},
        distance_threshold=distance_threshold,
    )


def sentences(count: int, *, seed: int = 0) -> list[tuple[str, int]]:
    """Texts, each with the position of its label."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        label = number % len(LABELS)
        words = [*rng.choice(WORDS[LABELS[label]], 2), *rng.choice(NEUTRAL, 2)]
        rng.shuffle(words)
        found.append((" ".join(words), label))
    return found


def write_release(
    directory: Path,
    *,
    seed: int = 0,
    pair: bool = False,
    items: int = 60,
    distance_threshold: float | None = None,
    lexical: bool = False,
) -> ReleaseManifest:
    """A release, ready for `ReleaseDirectory.add`."""
    bundle = write_bundle(
        directory / "bundle",
        seed=seed,
        pair=pair,
        distance_threshold=distance_threshold,
        lexical=lexical,
    )
    encoder = OnnxEncoder.of_bundle(load_bundle(directory / "bundle"))
    examples = sentences(items, seed=1)
    texts = [text for text, _ in examples]
    pairs = [f"{text} please" for text in texts] if pair else None
    soft = np.full((items, len(LABELS)), 0.05, np.float32)
    soft[np.arange(items), [label for _, label in examples]] = 0.9
    table = pa.table(
        {
            "id": pa.array(range(items), pa.int64()),
            "text": texts,
            "text_pair": pa.array(pairs or [None] * items, pa.string()),
            "label": [LABELS[label] for _, label in examples],
            "soft_label": fixed_lists(soft),
            "origin": ["generated"] * items,
        }
    )
    knowledge = Knowledge(KnowledgeMetadata(task=TASK, labels=LABELS, pair=pair), table)
    _, vectors = encoder.encode(texts, pairs)
    path = directory / "knowledge.parquet"
    write_knowledge(path, knowledge.with_vectors(vectors, bundle.encoder_fingerprint))
    np.save(directory / "soft_labels.npy", soft.astype(np.float16))
    if lexical:
        # With the serving extras alone there is nothing to fit one with.
        from offline.store.index import write_lexical

        write_lexical(directory, knowledge, bundle)
    return write_release_manifest(
        directory,
        task=TASK,
        labels=LABELS,
        store_version=version_manifest(path).version,
        encoder_fingerprint=bundle.encoder_fingerprint,
        items=items,
        metrics={"accuracy": 1.0},
    )


def _write_tokenizer(path: Path) -> None:
    tokenizer = Tokenizer(
        WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(path))


def _write_model(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(len(LABELS), WIDTH))
    embeddings = 0.3 * rng.normal(size=(len(VOCABULARY), WIDTH))
    for position, words in enumerate(WORDS.values()):
        for word in words:
            embeddings[VOCABULARY.index(word)] += directions[position]
    weights = {
        "embeddings": embeddings,
        "head": directions.T,
        "projection": rng.normal(size=(WIDTH, DIMENSIONS)),
    }
    nodes = [
        helper.make_node("Gather", ["embeddings", "input_ids"], ["tokens"]),
        helper.make_node("Cast", ["attention_mask"], ["float_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["float_mask", "last"], ["mask"]),
        helper.make_node("Mul", ["tokens", "mask"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["summed"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "middle"], ["lengths"], keepdims=0),
        helper.make_node("Div", ["summed", "lengths"], ["mean"]),
        helper.make_node("MatMul", ["mean", "head"], ["logits"]),
        helper.make_node("MatMul", ["mean", "projection"], ["projected"]),
        helper.make_node("LpNormalization", ["projected"], ["query"], axis=-1, p=2),
    ]
    int64, float32 = TensorProto.INT64, TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("input_ids", int64, ["batch", "tokens"]),
            helper.make_tensor_value_info("attention_mask", int64, ["batch", "tokens"]),
        ],
        [
            helper.make_tensor_value_info("logits", float32, ["batch", len(LABELS)]),
            helper.make_tensor_value_info("query", float32, ["batch", DIMENSIONS]),
        ],
        [_tensor(name, value.astype(np.float32)) for name, value in weights.items()]
        + [_tensor("last", np.array([2])), _tensor("middle", np.array([1]))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _tensor(name: str, value: NDArray[np.generic]) -> TensorProto:
    return numpy_helper.from_array(value, name)
