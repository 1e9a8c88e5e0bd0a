"""Files that survive a power loss at any point: written aside, synced, renamed, and the folder synced (rename(2), fsync(2))."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

RESERVE = "reserve"
RESERVE_BYTES = 1 << 20
"""Kept back for metadata and state, which are smaller: on a disk that others filled, a rollback must still be read."""


@dataclass(frozen=True)
class Disk:
    """A folder whose files are whole or absent. Paths are relative to it."""

    root: Path

    def path(self, name: str) -> Path:
        """Where a file lies."""
        return self.root / name

    def read(self, name: str) -> bytes | None:
        """A file's content; None when there is none."""
        try:
            return self.path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, body: bytes) -> None:
        """Replace a file; readers and the next boot see the old or the new content, nothing between."""
        aside = f"{name}.part"
        self.make_folder(str(Path(name).parent))
        with self.path(aside).open("wb") as file:
            file.write(body)
            self.sync(file)
        self.rename(aside, name)

    def rename(self, name: str, target: str) -> None:
        """Rename, and make it last."""
        self.path(name).replace(self.path(target))
        self.sync_folder(self.path(target).parent)

    def make_folder(self, name: str) -> None:
        """Make a folder with its parents."""
        folder = self.path(name)
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            self.sync_folder(folder.parent)

    @contextmanager
    def append(self, name: str) -> Iterator[BinaryIO]:
        """Write at the end of a file; what was written before an error stays, and is synced when the block is left."""
        self.make_folder(str(Path(name).parent))
        with self.path(name).open("ab") as file:
            yield file
            self.sync(file)

    def remove(self, name: str) -> None:
        """Delete a file or a folder with all that is in it; nothing there is no error."""
        path = self.path(name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if path.parent.is_dir():
            self.sync_folder(path.parent)

    def sync(self, file: BinaryIO) -> None:
        """Bring a file's content to the disk."""
        file.flush()
        os.fsync(file.fileno())

    def sync_folder(self, folder: Path) -> None:
        """Bring a folder's names to the disk."""
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def keep_reserve(self) -> None:
        """Take the reserve's space, where that leaves others as much again. What a quota does not allow is left to others."""
        if not self.path(RESERVE).is_file() and self.free_bytes() > 2 * RESERVE_BYTES:
            try:
                self.write(RESERVE, os.urandom(RESERVE_BYTES))
            except OSError:
                self.remove(f"{RESERVE}.part")

    def give_up_reserve(self) -> bool:
        """The disk is full: what was kept back is for now. Whether there was something."""
        was_there = self.path(RESERVE).is_file()
        self.remove(RESERVE)
        return was_there

    def free_bytes(self) -> int:
        """Bytes that may still be written."""
        return shutil.disk_usage(self.root).free
