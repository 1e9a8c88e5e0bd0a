"""Shards from the teacher, or from what the cache has of their samples. Torch is loaded only to ask the teacher."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dram_workers.context import StageContext
from dram_workers.data.dataset import Dataset
from dram_workers.errors import Interrupted, WorkerReason
from dram_workers.parts import Part, Parts, is_first
from dram_workers.stages import TeachConfig
from dram_workers.teach.encoding import Bytes, Encoding
from dram_workers.teach.shards import HEAD_BYTES, Shard, ShardFile, keys_in, write_shard

if TYPE_CHECKING:
    from dram_workers.teach.passes import Passes


@dataclass(frozen=True)
class Work:
    """What the shards are made from."""

    config: TeachConfig
    context: StageContext
    dataset: Dataset
    encoding: Encoding

    @cached_property
    def passes(self) -> "Passes":
        """The teacher, loaded when it is first asked."""
        from dram_workers.teach.passes import open_passes

        return open_passes(self.config.identity, self.context, self.dataset, self.encoding)

    def ask(self, samples: Sequence[int]) -> Iterator[Bytes]:
        """The encoded targets of samples, by their numbers in the dataset."""
        if samples:
            for ids_NK, log_probs_NC in self.passes.of(samples):
                yield self.encoding.encode(ids_NK, log_probs_NC)


class Known:
    """Samples that the cache has already, in shards of other datasets."""

    def __init__(self, parts: Parts, done: dict[str, Part]) -> None:
        self.parts = parts
        self._done = done

    @cached_property
    def _part_of(self) -> dict[str, Part]:
        return {key: part for part in self._done.values() for key in self._keys(part)}

    def take(self, shard: Shard, work: Path) -> dict[str, Bytes]:
        """What the cache has of a shard's samples, as it is stored."""
        found: dict[str, Bytes] = {}
        for part in {self._part_of[key] for key in shard.keys if key in self._part_of}:
            path = work / f"known-{part.key}.safetensors"
            self.parts.fetch(part, path)
            file = ShardFile(path)
            found |= {key: file.encoded(key) for key in shard.keys if self._part_of.get(key) == part}
            path.unlink()
        return found

    def _keys(self, part: Part) -> list[str]:
        size = HEAD_BYTES
        while (keys := keys_in(head := self.parts.head(part, size))) is None and len(head) == size:
            size *= 16
        return keys or []


def write_shards(work: Work, shards: Sequence[Shard], known: Known) -> None:
    """Write shards one after the other; Interrupted between two samples."""
    total, written = sum(sum(shard.targets) for shard in shards), 0
    context = work.context
    for shard in shards:
        samples = known.take(shard, context.work)
        unknown = {key: number for number, key in zip(shard.samples, shard.keys, strict=True) if key not in samples}
        for key, encoded in zip(unknown, work.ask(list(unknown.values())), strict=True):
            if context.stopping.is_set():
                raise Interrupted(WorkerReason.INTERRUPTED, "told to stop while the teacher was working")
            samples[key] = encoded
            if is_first():
                context.reporter.report(written + sum(map(len, samples.values())), total)
        written += sum(shard.targets)
        path = context.work / f"{shard.key}.safetensors"
        write_shard(path, shard, work.encoding, [samples[key] for key in shard.keys])
        known.parts.put(shard.key, path)
        path.unlink()
