"""Disks in trouble: one loses power, one is full.

Without power, what was not synced is gone, and what was renamed without syncing the folder was never renamed.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dram_agent.disk import RESERVE, Disk


class PowerLost(BaseException):
    """The device is off."""


@dataclass(frozen=True)
class DyingDisk(Disk):
    """Dies at the n-th of all moments that matter: before and after each sync, rename and removal."""

    dies_at: int = 10**9
    moments: list[str] = field(default_factory=list)
    _renamed: list[tuple[Path, Path, bytes | None]] = field(default_factory=list)

    def sync(self, file: BinaryIO) -> None:
        file.flush()
        if self._is_the_end(f"before sync of {Path(file.name).name}"):
            # the page cache is lost: half of it had reached the disk
            path = Path(file.name)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            raise PowerLost
        super().sync(file)
        self._moment(f"after sync of {Path(file.name).name}")

    def rename(self, name: str, target: str) -> None:
        self._moment(f"before rename to {target}")
        to = self.path(target)
        self._renamed.append((self.path(name), to, to.read_bytes() if to.is_file() else None))
        super().rename(name, target)
        self._moment(f"after rename to {target}")

    def sync_folder(self, folder: Path) -> None:
        if self._is_the_end(f"before sync of folder {folder.name}"):
            for source, target, before in reversed(self._renamed):
                if target.parent == folder and target.exists():
                    target.replace(source)
                    if before is not None:
                        target.write_bytes(before)
            raise PowerLost
        super().sync_folder(folder)
        self._renamed[:] = [each for each in self._renamed if each[1].parent != folder]

    def remove(self, name: str) -> None:
        self._moment(f"before removal of {name}")
        super().remove(name)
        self._moment(f"after removal of {name}")

    @contextmanager
    def append(self, name: str) -> Iterator[BinaryIO]:
        self._moment(f"before appending to {name}")
        with super().append(name) as file:
            yield file

    def _moment(self, what: str) -> None:
        if self._is_the_end(what):
            raise PowerLost

    def _is_the_end(self, what: str) -> bool:
        self.moments.append(what)
        return len(self.moments) == self.dies_at


@dataclass(frozen=True)
class FullDisk(Disk):
    """Takes nothing for files of these names; "" is all of them."""

    full: list[str] = field(default_factory=list)
    """No space; small files find place where the reserve was."""
    broken: list[str] = field(default_factory=list)
    """The card is worn out."""

    def write(self, name: str, body: bytes) -> None:
        self._check(name)
        super().write(name, body)

    @contextmanager
    def append(self, name: str) -> Iterator[BinaryIO]:
        self._check(name)
        with super().append(name) as file:
            yield file

    def _check(self, name: str) -> None:
        if any(part in name for part in self.broken):
            raise OSError(errno.EIO, "Input/output error")
        is_small = not name.startswith("slots/") and not self.path(RESERVE).exists()
        if any(part in name for part in self.full) and not (is_small and name != RESERVE):
            raise OSError(errno.ENOSPC, "No space left on device")
