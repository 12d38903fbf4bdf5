import numpy as np
import torch

from offline.student.model import ShapeConfig, StudentShape, make_student
from offline.student.token_codes import PARTS_SHARED, interleaved, quantise


def clustered(tokens: int, dimensions: int) -> np.ndarray:
    random = np.random.default_rng(0)
    centres = random.normal(size=(40, dimensions))
    rows = centres[random.integers(40, size=tokens)] + 0.1 * random.normal(
        size=(tokens, dimensions)
    )
    return rows.astype(np.float32)


def test_codes_keep_most_of_what_embeddings_say() -> None:
    embeddings = clustered(3000, 16)
    coded = quantise(embeddings, 4)
    assert coded.codes.shape == (3000, 4)
    assert coded.codes.dtype == np.uint8
    lost = np.square(embeddings - coded.embeddings()).sum()
    assert lost < 0.02 * np.square(embeddings).sum()


def test_the_same_embeddings_give_the_same_codes() -> None:
    embeddings = clustered(2000, 16)
    one, other = quantise(embeddings, 4), quantise(embeddings, 4)
    assert np.array_equal(one.codes, other.codes)
    assert np.array_equal(one.books, other.books)


def test_few_tokens_are_kept_exactly() -> None:
    embeddings = clustered(PARTS_SHARED, 8)
    np.testing.assert_array_equal(quantise(embeddings, 2).embeddings(), embeddings)


def test_every_part_gets_large_and_small_components() -> None:
    assert interleaved(8, 2).tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


def test_a_student_begins_exactly_at_its_own_embeddings_and_near_the_composed_ones() -> None:
    embeddings = clustered(1500, 16)
    embeddings[0] = 0
    sizes = ShapeConfig(vocabulary=100, coded=1400, codes=4, embedding=16, hidden=16, heads=2)
    codes = quantise(embeddings, 4)
    model = make_student(StudentShape(1500, 100, 3, sizes), embeddings, codes, dropout=0.0, seed=0)
    with torch.inference_mode():
        found = model.tokens(torch.arange(1500)[None])[0].numpy()
    np.testing.assert_allclose(found[:100], embeddings[:100], atol=1e-5)
    np.testing.assert_allclose(found[100:], codes.embeddings()[100:], atol=1e-6)
