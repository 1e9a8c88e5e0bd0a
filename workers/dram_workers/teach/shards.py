"""The teacher's logits on disk: which samples make a shard, how they are named, how a shard is written and read.

A sample's targets depend on its tokens and its loss mask, so those are its key. A shard is named after the keys of its
samples and nothing else; its folder is named after the teacher and how it was asked. No torch.

Legend as in `encoding`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from dram_workers.data.dataset import Dataset
from dram_workers.data.dataset import Sequence as Sample
from dram_workers.stages import canonical_json
from dram_workers.teach.encoding import Bytes, Encoding

SHARD_TARGETS = 16_384
"""Target tokens after which a shard ends: a few MiB, and what a killed pod loses."""
KEY_BYTES = 16
TOKENS, FACTS = "tokens", "facts"
HEAD_BYTES = 1 << 16
"""What is read of a shard to see which samples it holds."""


def sample_key(sample: Sample) -> str:
    """32 hex digits that name a sample's targets."""
    tokens = np.asarray(sample.tokens, "<i4")
    digest = hashlib.sha256(b"%d:" % len(tokens) + tokens.tobytes())
    digest.update(np.packbits(np.asarray(sample.loss_mask, bool)).tobytes())
    return digest.digest()[:KEY_BYTES].hex()


@dataclass(frozen=True)
class Shard:
    """Samples that are stored together."""

    samples: tuple[int, ...]
    """Their numbers in the dataset."""
    keys: tuple[str, ...]
    targets: tuple[int, ...]
    """Target tokens of each."""

    @property
    def key(self) -> str:
        """64 hex digits that name what the shard holds."""
        return hashlib.sha256("".join(self.keys).encode()).hexdigest()


def plan_shards(dataset: Dataset) -> list[Shard]:
    """Every sample with a target, once, in the order of the dataset. Depends on nothing but the samples."""
    shards: list[Shard] = []
    rows: list[tuple[int, str, int]] = []
    seen: set[str] = set()
    total = 0
    for number in range(len(dataset)):
        sample = dataset[number]
        key, targets = sample_key(sample), int(np.count_nonzero(sample.loss_mask[1:]))
        if key in seen or not targets:
            continue
        seen.add(key)
        rows.append((number, key, targets))
        total += targets
        if total >= SHARD_TARGETS:
            shards.append(_shard(rows))
            rows, total = [], 0
    return [*shards, _shard(rows)] if rows else shards


def _shard(rows: list[tuple[int, str, int]]) -> Shard:
    numbers, keys, targets = zip(*rows, strict=True)
    return Shard(numbers, keys, targets)


def write_shard(path: Path, shard: Shard, encoding: Encoding, samples: Sequence[Bytes]) -> None:
    """Write a shard: each sample's encoded targets, in the shard's order. The same content gives the same bytes."""
    facts = {
        "rows": encoding.rows,
        "topK": encoding.top_k,
        "samples": list(zip(shard.keys, shard.targets, strict=True)),
    }
    # One entry: safetensors writes several in an order that differs from time to time.
    save_file({TOKENS: np.concatenate(samples)}, path, metadata={FACTS: canonical_json(facts).decode()})


class ShardFile:
    """A shard on this machine, mapped into memory and read sample by sample. It was verified when it was fetched."""

    def __init__(self, path: Path) -> None:
        self._file = safe_open(path, framework="numpy")
        facts = json.loads(self._file.metadata()[FACTS])  # type: ignore[no-untyped-call]
        self.encoding = Encoding(facts["rows"], facts["topK"])
        self._tokens = self._file.get_slice(TOKENS)  # type: ignore[no-untyped-call]
        ends = np.cumsum([0, *(targets for _, targets in facts["samples"])])
        self._place = {key: (int(ends[n]), int(ends[n + 1])) for n, (key, _) in enumerate(facts["samples"])}

    def encoded(self, key: str) -> Bytes:
        """A sample's targets as they are stored."""
        start, end = self._place[key]
        tokens: Bytes = self._tokens[start:end]
        return tokens

    def targets(self, key: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """A sample's ids [N, K] and log-probabilities [N, C]."""
        return self.encoding.decode(self.encoded(key))


def keys_in(head: bytes) -> list[str] | None:
    """Keys of the samples of a shard from its first bytes; None when they do not reach far enough, or are damaged."""
    size = int.from_bytes(head[:8], "little")
    if len(head) < 8 + size:
        return None
    try:
        header: dict[str, Any] = json.loads(head[8 : 8 + size])
        return [key for key, _ in json.loads(header["__metadata__"][FACTS])["samples"]]
    except (ValueError, KeyError):
        return None
