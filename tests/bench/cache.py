"""The cache of teacher logits: bytes a token, and how fast a shard is written and read, beside plain tensors in a file."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dram_workers.parts import Parts
from dram_workers.store.folder import FolderStore
from dram_workers.teach.encoding import Encoding
from dram_workers.teach.shards import SHARD_TARGETS, Shard, ShardFile, write_shard
from tests.bench.results import Row

TOP_K = 32
VOCABULARIES = {"v49k": 49_152, "v152k": 151_936, "v262k": 262_144}
SAMPLE_TARGETS = 64
REPEATS = 3
PEER = "torch.save: ids int32, log-probs fp16"
PUBLISHED = "DistillKit states 114 at k=50 and about 300 at k=128"

Kept = tuple[NDArray[np.int64], NDArray[np.float32]]


def rows() -> list[Row]:
    """One shard of 16,384 tokens in samples of 64 for each size of vocabulary."""
    return [row for name, size in VOCABULARIES.items() for row in _of_vocabulary(name, size)]


def _of_vocabulary(name: str, size: int) -> list[Row]:
    kept = _drawn(size)
    with tempfile.TemporaryDirectory() as folder:
        ours, peer = _ours(Path(folder), Encoding(size, TOP_K), kept), _peer(Path(folder), kept)
    shape = f"k={TOP_K}, V={size:,}, one shard of {SHARD_TARGETS:,} tokens"
    speed = f"{shape}; best of {REPEATS}; larger is better; ours is verified by SHA-256, the peer's is not"
    return [
        _row(f"cache.bytes_per_token.{name}", "bytes", ours[0], peer[0], f"{shape}; smaller is better; {PUBLISHED}"),
        _row(f"cache.write_tokens_per_second.{name}", "tokens/s", ours[1], peer[1], speed),
        _row(f"cache.read_tokens_per_second.{name}", "tokens/s", ours[2], peer[2], speed),
        _row(f"cache.write_bytes_per_second.{name}", "bytes/s", ours[0] * ours[1], peer[0] * peer[1], speed),
        _row(f"cache.read_bytes_per_second.{name}", "bytes/s", ours[0] * ours[2], peer[0] * peer[2], speed),
    ]


def _row(measure: str, unit: str, ours: float, peer: float, note: str) -> Row:
    return Row(measure=measure, value=ours, unit=unit, peer=PEER, peerValue=peer, note=note)


def _drawn(size: int) -> Kept:
    """Different ids and falling log-probabilities, as `likeliest` gives them."""
    random = np.random.default_rng(size)
    ids = random.integers(1, size // TOP_K, (SHARD_TARGETS, TOP_K)).cumsum(1) - 1
    logs = -np.sort(random.exponential(3, (SHARD_TARGETS, TOP_K + 1)))
    return random.permuted(ids, axis=1), (logs - np.log(np.exp(logs).sum(1, keepdims=True))).astype(np.float32)


def _samples(kept: Kept) -> list[Kept]:
    count = SHARD_TARGETS // SAMPLE_TARGETS
    return list(zip(*(np.split(part, count) for part in kept), strict=True))


def _ours(folder: Path, encoding: Encoding, kept: Kept) -> tuple[float, float, float]:
    """Bytes a token, tokens written and read a second: encoded, written, uploaded; fetched, verified, decoded."""
    samples = _samples(kept)
    keys = tuple(f"{number:032x}" for number in range(len(samples)))
    shard = Shard(tuple(range(len(samples))), keys, (SAMPLE_TARGETS,) * len(samples))
    parts = Parts(FolderStore(folder / "store"), "cache")

    def write() -> None:
        path = folder / "shard"
        write_shard(path, shard, encoding, [encoding.encode(*sample) for sample in samples])
        parts.put(shard.key, path)

    def read() -> None:
        path = folder / "fetched"
        parts.fetch(parts.found()[shard.key], path)
        file = ShardFile(path)
        for key in keys:
            ids_NK, logs_NC = file.targets(key)
            torch.from_numpy(ids_NK), torch.from_numpy(logs_NC)

    written, reading = _tokens_per_second(write), _tokens_per_second(read)
    return parts.found()[shard.key].size / SHARD_TARGETS, written, reading


def _peer(folder: Path, kept: Kept) -> tuple[float, float, float]:
    samples = _samples(kept)
    path = folder / "peer.pt"

    def write() -> None:
        tensors = {
            number: (torch.from_numpy(ids).int(), torch.from_numpy(logs).half())
            for number, (ids, logs) in enumerate(samples)
        }
        torch.save(tensors, path)

    def read() -> None:
        for ids, logs in torch.load(path, weights_only=True).values():
            ids.long(), logs.float()

    written, reading = _tokens_per_second(write), _tokens_per_second(read)
    return path.stat().st_size / SHARD_TARGETS, written, reading


def _tokens_per_second(work: Callable[[], None]) -> float:
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return SHARD_TARGETS / min(seconds)
