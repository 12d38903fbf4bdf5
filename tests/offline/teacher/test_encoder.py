"""The packaged encoder: embeddings that do not depend on the batch, and tokens one by one."""

import numpy as np
import pytest

from offline.teacher.encoder import EncoderConfig, SentenceEncoder, load_encoder, rerun
from services.platform.errors import ModelNotFound

TEXTS = [
    "my laptop will not start",
    "the notebook does not boot any more, and I have a deadline at noon today",
    "please add me to the finance group",
    "x",
]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return load_encoder(EncoderConfig(batch_size=2))


def test_embeddings_have_unit_length_in_the_order_of_the_texts(encoder: SentenceEncoder) -> None:
    embeddings = encoder.embed(TEXTS)
    assert embeddings.shape == (4, encoder.dimensions)
    assert embeddings.dtype == np.float32
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    for row, text in enumerate(TEXTS):
        assert np.allclose(encoder.embed([text])[0], embeddings[row], atol=1e-5)


def test_texts_of_like_meaning_are_nearer(encoder: SentenceEncoder) -> None:
    first, second, other, _ = encoder.embed(TEXTS)
    assert first @ second > first @ other + 0.1


def test_mean_pooling_is_the_first_part_of_layers_pooling(encoder: SentenceEncoder) -> None:
    mean = load_encoder(EncoderConfig(pooling="mean"))
    assert (mean.dimensions, encoder.dimensions) == (384, 3 * 384)
    assert np.allclose(mean.embed(TEXTS), encoder.embed(TEXTS)[:, :384] * np.sqrt(3), atol=1e-5)


def test_nothing_of_the_encoder_can_be_trained(encoder: SentenceEncoder) -> None:
    assert not any(tensor.requires_grad for tensor in encoder.model.parameters())
    assert not encoder.model.training
    assert encoder.parameters == 22_713_216


def test_a_pair_is_encoded_as_one_sequence_in_that_order(encoder: SentenceEncoder) -> None:
    there, back = encoder.embed(["a dog", "a cat"], ["a cat", "a dog"])
    assert not np.allclose(there, back, atol=1e-2)
    assert not np.allclose(there, encoder.embed(["a dog"])[0], atol=1e-2)


def test_long_texts_are_cut_not_refused(encoder: SentenceEncoder) -> None:
    long = "again and " * 1000
    assert np.allclose(encoder.embed([long])[0], encoder.embed([long + "again"])[0], atol=1e-5)


def test_tokens_stand_alone_and_unknown_ones_share_a_row(encoder: SentenceEncoder) -> None:
    rows = encoder.embed_tokens(["laptop", "##ing", "no-such-token", "nor-such"])
    assert rows.shape == (4, 384)
    assert np.allclose(rows[2], rows[3], atol=1e-5)
    assert not np.allclose(rows[0], rows[1], atol=1e-1)
    mean = load_encoder(EncoderConfig(pooling="mean"))
    text = mean.embed(["laptop"])[0]
    assert rows[0] @ text / np.linalg.norm(rows[0]) > 0.7


def test_no_text_gives_no_row(encoder: SentenceEncoder) -> None:
    assert encoder.embed([]).shape == (0, encoder.dimensions)


def test_bfloat16_differs_in_the_third_digit_only(encoder: SentenceEncoder) -> None:
    low = load_encoder(EncoderConfig(precision="bfloat16"))
    similarity = (low.embed(TEXTS) * encoder.embed(TEXTS)).sum(1)
    assert similarity.min() > 0.999


def test_auto_is_one_of_the_two(encoder: SentenceEncoder) -> None:
    """Which of them hangs on the processor; what it gives is that one's to the bit."""
    found = load_encoder(EncoderConfig(batch_size=2, precision="auto")).embed(TEXTS)
    low = load_encoder(EncoderConfig(batch_size=2, precision="bfloat16")).embed(TEXTS)
    assert np.array_equal(found, low) or np.array_equal(found, encoder.embed(TEXTS))


def test_progress_is_told_after_every_batch(encoder: SentenceEncoder) -> None:
    told: list[tuple[int, int]] = []
    encoder.embed(TEXTS[:3], progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 3), (3, 3)]


def test_running_elsewhere_keeps_what_the_embeddings_hang_on() -> None:
    stored = EncoderConfig(pooling="layers", max_tokens=64)
    faster = rerun(
        stored, EncoderConfig(pooling="mean", precision="bfloat16", batch_size=8, max_tokens=256)
    )
    assert (faster.pooling, faster.max_tokens) == ("layers", 64)
    assert (faster.precision, faster.batch_size) == ("bfloat16", 8)
    assert rerun(stored, None) is stored


def test_a_missing_directory_is_told() -> None:
    with pytest.raises(ModelNotFound, match="does not exist"):
        load_encoder(EncoderConfig(model="./no/such/model"))
