"""A target token's top logits in few bytes: the ids by Elias and Fano's code, the log-probabilities on a bent scale.

A teacher's token ids need no order of their own, so they are sorted: their low bits are stored as they are and their
high bits in unary, about two bits an id (Elias 1974, "Efficient storage and retrieval by content and address of static
files"; Fano 1971). That is within half a bit of what a set of ids must take, for any vocabulary, and every token takes
the same number of bytes, so any token is found without reading those before it. Log-probabilities are spaced evenly in
their square root: finest near 0, where the mass is. No torch.

Legend: N tokens, K ids of a token, C = K + 1 values: a log-probability an id, and that of all other ids together.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

LOWEST = -32.0
"""What rounds to it or lies below is read as no probability: no gradient in any precision tells 1e-14 from 0."""
VALUE_BITS = 8
"""More bits leave the gradient as it is, to the fifth digit of its cosine (docs/design/teacher-logits.md)."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Encoding:
    """How the tokens of one shard are written."""

    rows: int
    """Size of the vocabulary."""
    top_k: int
    value_bits: int = VALUE_BITS

    @cached_property
    def low_bits(self) -> int:
        """Bits of an id that are stored as they are."""
        return max(0, (self.rows // self.top_k).bit_length() - 1)

    @property
    def widths(self) -> tuple[int, int, int]:
        """Bytes of a token's low bits, high bits and values."""
        highest = (self.rows - 1) >> self.low_bits
        bits = (self.low_bits * self.top_k, self.top_k + highest + 1, self.value_bits * (self.top_k + 1))
        low, high, values = (-(-count // 8) for count in bits)
        return low, high, values

    @property
    def token_bytes(self) -> int:
        """Bytes of a token."""
        return sum(self.widths)

    @property
    def largest(self) -> int:
        """The code of LOWEST."""
        return (1 << self.value_bits) - 1

    @cached_property
    def scale(self) -> NDArray[np.float32]:
        """The log-probability of every code; the last one stands for none."""
        values = LOWEST * (np.arange(self.largest + 1) / self.largest) ** 2
        values[-1] = -np.inf
        return values.astype(np.float32)

    def error_bound(self, log_prob: float) -> float:
        """The most by which a stored log-probability above LOWEST differs from the one given."""
        return float((np.sqrt(LOWEST * log_prob) - LOWEST / (4 * self.largest)) / self.largest)

    def encode(self, ids_NK: NDArray[np.int64], log_probs_NC: NDArray[np.float32]) -> Bytes:
        """Tokens as bytes [N, token_bytes]; `error_bound` says how near the values stay. ValueError for an id twice."""
        order = ids_NK.argsort(axis=1)
        ids = np.take_along_axis(ids_NK, order, axis=1)
        if ids.size and (ids[:, 0].min() < 0 or ids[:, -1].max() >= self.rows or (np.diff(ids) <= 0).any()):
            raise ValueError(f"a token's {self.top_k} ids are not different ids below {self.rows}")
        values = log_probs_NC.copy()
        values[:, : self.top_k] = np.take_along_axis(log_probs_NC[:, : self.top_k], order, axis=1)
        codes = np.rint(np.sqrt(np.clip(values, LOWEST, 0) / LOWEST) * self.largest).astype(np.uint32)
        high = np.zeros((len(ids), self.widths[1] * 8), np.uint8)
        np.put_along_axis(high, (ids >> self.low_bits) + np.arange(self.top_k), 1, axis=1)
        low = pack(ids & ((1 << self.low_bits) - 1), self.low_bits)
        return np.concatenate([low, np.packbits(high, axis=1, bitorder="little"), pack(codes, self.value_bits)], axis=1)

    def decode(self, tokens: Bytes) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids [N, K], ascending, and log-probabilities [N, C]; rounding leaves their sum a little off one."""
        first, second, _ = np.cumsum(self.widths)
        low = unpack(tokens[:, :first], self.top_k, self.low_bits)
        high = np.unpackbits(tokens[:, first:second], axis=1, bitorder="little")
        found = np.nonzero(high)[1].reshape(len(tokens), self.top_k) - np.arange(self.top_k)
        codes = unpack(tokens[:, second:], self.top_k + 1, self.value_bits)
        return (found << self.low_bits) | low, self.scale[codes]


def pack(values: NDArray[np.integer], bits: int) -> Bytes:
    """The lowest `bits` of each value, a row's one after the other, as bytes [N, …]."""
    planes = (values[..., None] >> np.arange(bits)) & 1
    return np.packbits(planes.astype(np.uint8).reshape(len(values), -1), axis=1, bitorder="little")


def unpack(packed: Bytes, count: int, bits: int) -> NDArray[np.int64]:
    """`count` values of at most 24 bits from each row."""
    padded = np.pad(packed, ((0, 0), (0, 4))).astype(np.uint32)
    starts = np.arange(count) * bits
    place = starts // 8
    words = padded[:, place] | padded[:, place + 1] << 8 | padded[:, place + 2] << 16 | padded[:, place + 3] << 24
    return ((words >> (starts % 8).astype(np.uint32)) & ((1 << bits) - 1)).astype(np.int64)
