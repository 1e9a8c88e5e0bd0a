"""Checkpoints in the store: whole tensors in safetensors, spread over the ranks, the manifest last.

Tensors are saved whole and by name, not as the shards that ZeRO happens to hold, so a training goes on with any number
of ranks and any ZeRO stage. Nothing in a checkpoint is pickled.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dram_workers.model import Model
from dram_workers.store.manifest import FileEntry, file_sha256
from dram_workers.store.objects import ObjectStore
from dram_workers.train.gang import checkpoint_prefix

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


class CheckpointManifest(Model):
    """What makes a checkpoint complete; a folder without it does not exist."""

    step: int
    """Optimizer steps that are done."""
    attempt: int
    files: tuple[FileEntry, ...]
    log: tuple[str, ...]
    """The lines of the train log so far."""
    best: int | None = None
    """The step of the checkpoint with the best validation so far, which this one goes on from too."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on this machine."""

    manifest: CheckpointManifest
    folder: Path

    def read(self, name: str) -> Tensor:
        """A tensor by the name that it was saved under."""
        for file in self.manifest.files:
            with safe_open(self.folder / file.path, framework="pt") as tensors:
                if name in tensors.keys():  # noqa: SIM118 -- it is no dict
                    found: Tensor = tensors.get_tensor(name)
                    return found
        raise KeyError(name)


class Checkpoints:
    """The checkpoints of one stage key."""

    def __init__(self, store: ObjectStore, key: str, attempt: int, kept: int) -> None:
        self._store = store
        self._prefix = checkpoint_prefix(key)
        self._attempt = attempt
        self._kept = kept

    def latest(self, folder: Path) -> Checkpoint | None:
        """Fetch the newest complete checkpoint; one whose files are not what its manifest says is removed."""
        for step in sorted(self._complete_steps(), reverse=True):
            checkpoint = self.at(step, folder)
            if checkpoint is None:
                continue
            if checkpoint.manifest.best in {None, *self._complete_steps()}:
                return checkpoint
            logger.warning("checkpoint of step %d has lost the best one before it, so it is removed", step)
            self._remove(step)
        return None

    def at(self, step: int, folder: Path) -> Checkpoint | None:
        """Fetch the checkpoint of a step; a damaged one is removed."""
        checkpoint = self._fetch(step, folder / str(step))
        if checkpoint is None:
            logger.warning("checkpoint of step %d is damaged, so it is removed", step)
            self._remove(step)
        return checkpoint

    def save_file(self, step: int, rank: int, tensors: dict[str, Tensor], folder: Path) -> FileEntry:
        """Write and upload what one rank holds. The attempt is in the name: a zombie writes beside it, not over it."""
        name = f"attempt-{self._attempt}-rank-{rank}.safetensors"
        path = folder / name
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path)
        entry = FileEntry(path=name, sha256=file_sha256(path), size=path.stat().st_size)
        self._store.put_file(self._key(step, name), path)
        path.unlink()
        return entry

    def complete(self, step: int, files: Sequence[FileEntry], log: Iterable[str], best: int | None = None) -> None:
        """Write the manifest, once every rank's file is there, and prune older checkpoints, but not the best."""
        manifest = CheckpointManifest(step=step, attempt=self._attempt, files=tuple(files), log=tuple(log), best=best)
        body = manifest.model_dump_json().encode()
        if not self._store.put_bytes(self._key(step, MANIFEST), body, if_absent=True):
            logger.warning("step %d has a checkpoint of another attempt already", step)
        self.prune(self._kept, best)

    def prune(self, kept: int, best: int | None = None) -> None:
        """Remove all but the newest `kept` complete checkpoints and the best, and what attempts left unfinished before."""
        newest = sorted(self._complete_steps(), reverse=True)[:kept]
        oldest = min(newest, default=None)
        for step in self._steps() - {best}:
            if oldest is None or step < oldest:
                self._remove(step)

    def _fetch(self, step: int, folder: Path) -> Checkpoint | None:
        try:
            manifest = CheckpointManifest.model_validate_json(self._store.get_bytes(self._key(step, MANIFEST)) or b"")
        except ValidationError:
            return None
        for file in manifest.files:
            path = folder / file.path
            try:
                self._store.get_file(self._key(step, file.path), path)
            except FileNotFoundError:
                return None
            if path.stat().st_size != file.size or file_sha256(path) != file.sha256:
                return None
        return Checkpoint(manifest, folder)

    def _remove(self, step: int) -> None:
        """Delete a checkpoint, its manifest first, so that no reader sees half of it."""
        self._store.delete([self._key(step, MANIFEST)])
        self._store.delete([found.key for found in self._store.list(f"{self._prefix}{step}/")])

    def _steps(self) -> set[int]:
        return {int(found.key[len(self._prefix) :].split("/")[0]) for found in self._store.list(self._prefix)}

    def _complete_steps(self) -> set[int]:
        found = (info.key[len(self._prefix) :].split("/") for info in self._store.list(self._prefix))
        return {int(parts[0]) for parts in found if parts[-1] == MANIFEST}

    def _key(self, step: int, name: str) -> str:
        return f"{self._prefix}{step}/{name}"


def as_lines(rows: Iterable[dict[str, float]]) -> list[str]:
    """Rows of the train log as JSON lines; a float keeps every bit."""
    return [json.dumps(row, separators=(",", ":")) for row in rows]
