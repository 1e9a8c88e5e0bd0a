"""The teacher's logits from the cache, in the place of a teacher. Verified when a shard is first read, then mapped.

Legend as in `losses.terms`.
"""

import os
from pathlib import Path

import numpy as np
import torch

from dram_workers.data.dataset import Dataset
from dram_workers.parts import Part, Parts
from dram_workers.store.objects import ObjectStore
from dram_workers.teach.index import Index
from dram_workers.teach.shards import ShardFile, sample_key
from dram_workers.train.batches import MicroBatch
from dram_workers.train.losses import TopK


class CachedTeacher:
    """Gives the targets of any sample of the dataset, in whatever batch it is; no teacher is loaded.

    A shard that is gone or whose bytes are not those that were written is Transient(PartLost): it is removed, and the
    stage that made it makes it again.
    """

    def __init__(self, logits: Path, dataset: Dataset, store: ObjectStore, folder: Path) -> None:
        """Shards are brought to `folder`, empty when the attempt starts, as samples ask for them."""
        self._index = Index.read(logits)
        self._dataset = dataset
        self._parts = Parts(store, self._index.folder)
        self._folder = folder
        self._files: dict[str, ShardFile] = {}
        self._shard_of = self._index.shard_of(dataset)

    def target(self, batch: MicroBatch, temperature: float) -> TopK:
        """What is kept of the batch's targets. ValueError for a temperature that the cache is not for."""
        if temperature != self._index.temperature:
            raise ValueError(f"the logits are for temperature {self._index.temperature}, not {temperature}")
        width = self._index.top_k
        found = [self._of_sample(sample) for sample in batch.samples]
        ids_NK = np.concatenate([np.empty((0, width), np.int64), *(ids for ids, _ in found)])
        logs_NC = np.concatenate([np.empty((0, width + 1), np.float32), *(logs for _, logs in found)])
        logs = torch.from_numpy(logs_NC).to(batch.tokens_RL.device)
        ids = torch.from_numpy(ids_NK).to(batch.tokens_RL.device)
        return TopK(ids, logs[:, :width], logs[:, width], self._index.rows)

    def _of_sample(self, sample: int) -> tuple[np.typing.NDArray[np.int64], np.typing.NDArray[np.float32]]:
        key = sample_key(self._dataset[sample])
        part = self._shard_of.get(key)
        if part is None:
            empty = np.empty((0, self._index.top_k + 1), np.float32)
            return empty[:, 1:].astype(np.int64), empty
        if part.key not in self._files:
            self._files[part.key] = ShardFile(self._bring(part))
        return self._files[part.key].targets(key)

    def _bring(self, part: Part) -> Path:
        """The shard on this machine. Ranks share it: it gets its name when it is whole and verified."""
        path = self._folder / f"{part.key}.safetensors"
        if not path.exists():
            incoming = path.with_suffix(f".{os.getpid()}")
            self._parts.fetch(part, incoming)
            incoming.replace(path)
        return path
