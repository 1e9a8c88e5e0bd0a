"""A token's logits come back from their few bytes as they went in, within the stated bound."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dram_workers.teach.encoding import LOWEST, Encoding, pack, unpack

VOCABULARIES = (49_152, 151_936, 262_144)


def drawn(rows: int, top_k: int, tokens: int = 64) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Ids and log-probabilities of random distributions from flat to almost certain, likeliest first."""
    random = np.random.default_rng(rows + top_k)
    ids = np.stack([random.choice(rows, top_k, replace=False) for _ in range(tokens)])
    logits = random.normal(size=(tokens, top_k + 1)) * random.uniform(0, 12, (tokens, 1))
    logits[:, :-1] = -np.sort(-logits[:, :-1])
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return ids, log_probs.astype(np.float32)


@pytest.mark.parametrize("rows", [7, 300, *VOCABULARIES, 1 << 20])
@pytest.mark.parametrize("top_k", [1, 5, 32, 64])
def test_ids_come_back_exactly_and_values_within_the_bound(rows: int, top_k: int) -> None:
    encoding = Encoding(rows, min(top_k, rows))
    ids, log_probs = drawn(rows, encoding.top_k)
    encoded = encoding.encode(ids, log_probs)
    assert encoded.shape == (len(ids), encoding.token_bytes)
    found, values = encoding.decode(encoded)
    order = ids.argsort(1)
    np.testing.assert_array_equal(found, np.take_along_axis(ids, order, 1))
    want = np.concatenate([np.take_along_axis(log_probs[:, :-1], order, 1), log_probs[:, -1:]], axis=1)
    bounds = np.vectorize(encoding.error_bound)(np.clip(want, LOWEST, 0))
    assert (np.abs(np.maximum(values, LOWEST) - np.clip(want, LOWEST, 0)) <= bounds * 1.001 + 1e-6).all()


def test_the_bound_is_small_where_the_mass_is() -> None:
    error_bound = Encoding(49_152, 64).error_bound
    assert error_bound(-0.01) < 2.4e-3
    assert error_bound(-1.0) < 0.023
    assert max(np.exp(-x) * error_bound(-x) for x in np.linspace(0, 32, 1000)) < 0.01


@pytest.mark.parametrize("rows", VOCABULARIES)
def test_a_token_at_32_takes_at_most_160_bytes(rows: int) -> None:
    assert Encoding(rows, 32).token_bytes <= 95
    assert Encoding(rows, 64).token_bytes <= 180


def test_a_certain_teacher_has_no_tail() -> None:
    encoding = Encoding(100, 2)
    _, values = encoding.decode(encoding.encode(np.array([[3, 99]]), np.array([[0.0, -np.inf, -np.inf]], np.float32)))
    np.testing.assert_array_equal(values, [[0.0, -np.inf, -np.inf]])


@pytest.mark.parametrize("ids", [[3, 3], [-1, 3], [3, 100]])
def test_ids_that_are_no_set_below_the_vocabulary_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="different ids below 100"):
        Encoding(100, 2).encode(np.array([ids]), np.zeros((1, 3), np.float32))


@pytest.mark.parametrize("bits", [0, 1, 7, 8, 12, 13, 17, 24])
def test_bits_are_unpacked_as_they_were_packed(bits: int) -> None:
    values = np.random.default_rng(bits).integers(0, 1 << bits, (9, 11))
    packed = pack(values, bits)
    assert packed.shape == (9, -(-11 * bits // 8))
    np.testing.assert_array_equal(unpack(packed, 11, bits), values)
