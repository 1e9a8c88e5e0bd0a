"""What the pods of one stage make side by side. Import-light: no torch.

The work of such a stage is cut into parts in a way that depends on the recipe alone. A pod makes the parts of its share
that are not in the store yet; whichever pod then finds all of them there puts the stage's result together. So no pod
waits for another, a stage goes on where it stopped with any number of pods, and they need not run at the same time.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dram_workers.errors import Transient, WorkerReason
from dram_workers.store.manifest import file_sha256
from dram_workers.store.objects import ObjectStore

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


def pod_number() -> int | None:
    """This pod's number in an Indexed Job; None where one process does everything."""
    number = os.environ.get("JOB_COMPLETION_INDEX")
    return None if number is None else int(number)


def share_of(items: Sequence[Item], workers: int) -> Sequence[Item]:
    """This pod's items; all of them where one process does everything."""
    number = pod_number()
    return items if number is None else items[number::workers]


def is_first() -> bool:
    """Whether this pod tells how far the stage is; its share is as large as any other."""
    return pod_number() in (None, 0)


@dataclass(frozen=True)
class Part:
    """A part in the store."""

    key: str
    """Names what it holds; parts of one key are interchangeable."""
    sha256: str
    size: int
    """Bytes."""


class Parts:
    """The parts in one folder of the store. A part's digest is in its name, so no writer can replace another's bytes."""

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._store = store
        self._folder = folder

    def found(self) -> dict[str, Part]:
        """Every part by its key; of two with one key, always the same."""
        parts: dict[str, Part] = {}
        for info in sorted(self._store.list(f"{self._folder}/"), key=lambda info: info.key, reverse=True):
            key, _, sha256 = info.key.removeprefix(f"{self._folder}/").rpartition(".")
            parts[key] = Part(key, sha256, info.size_bytes)
        return parts

    def put(self, key: str, path: Path) -> Part:
        """Upload a file as a part."""
        part = Part(key, file_sha256(path), path.stat().st_size)
        self._store.put_file(self._name(part), path)
        return part

    def fetch(self, part: Part, path: Path) -> None:
        """Bring a part to `path`; Transient when its content is not what its name says, and then it is removed."""
        try:
            self._store.get_file(self._name(part), path)
        except FileNotFoundError:
            raise self._lost(part, "is gone") from None
        if file_sha256(path) != part.sha256:
            path.unlink()
            self.remove(part)
            raise self._lost(part, "was damaged, and is removed")

    def head(self, part: Part, size: int) -> bytes:
        """The first bytes of a part, unverified; empty when it is gone."""
        return self._store.get_bytes(self._name(part), first=size) or b""

    def remove(self, part: Part) -> None:
        """Delete a part."""
        self._store.delete([self._name(part)])

    def _name(self, part: Part) -> str:
        return f"{self._folder}/{part.key}.{part.sha256}"

    def _lost(self, part: Part, what: str) -> Transient:
        return Transient(
            WorkerReason.PART_LOST,
            f"{self._store.uri(self._name(part))} {what}",
            field="spec.storage.uri",
            remedy="nothing is to be done: the next attempt makes it again",
        )
