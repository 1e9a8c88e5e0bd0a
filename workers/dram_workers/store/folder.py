"""An object store in a folder of this machine."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dram_workers.errors import BadInput, NoPermission, StageError, Transient, WorkerReason
from dram_workers.store.location import join
from dram_workers.store.objects import ObjectInfo

INCOMING = ".incoming"
"""Files on their way; a writer that was killed leaves its file here, where no reader looks."""


class FolderStore:
    """Objects are files below `root`; each appears whole, by a rename or a hard link on the same file system."""

    def __init__(self, root: Path, uri: str | None = None) -> None:
        self.root = root
        self._uri = uri if uri is not None else root.absolute().as_uri()

    def put_file(self, key: str, path: Path) -> None:
        """Copy a file into the store."""
        with self._errors(), self._incoming() as incoming:
            shutil.copyfile(path, incoming)
            _sync(incoming)
            incoming.replace(self._target(key))

    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
        """Write a file; with `if_absent`, only where there is none."""
        with self._errors(), self._incoming() as incoming:
            incoming.write_bytes(body)
            _sync(incoming)
            target = self._target(key)
            if not if_absent:
                incoming.replace(target)
                return True
            try:
                os.link(incoming, target)
            except FileExistsError:
                return False
            return True

    def get_bytes(self, key: str, *, first: int | None = None) -> bytes | None:
        """Read a file, or its first bytes; None when there is none."""
        with self._errors():
            try:
                with self._path(key).open("rb") as file:
                    return file.read(first)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None

    def get_file(self, key: str, path: Path) -> None:
        """Hard-link the file to `path`, or copy it to another file system; FileNotFoundError when there is none."""
        with self._errors():
            source = self._path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            try:
                os.link(source, path)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                    raise
                shutil.copyfile(source, path)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Files whose key starts with `prefix`, in key order."""
        with self._errors():
            yield from sorted(self._below(prefix), key=lambda info: info.key)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete files, and the folders that become empty."""
        with self._errors():
            for key in keys:
                path = self._path(key)
                path.unlink(missing_ok=True)
                self._drop_empty(path.parent)

    def uri(self, key: str) -> str:
        """The full URI of a key."""
        return join(self._uri, key)

    def _path(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/"):
            raise ValueError(f"{key!r} is no key")
        return self.root / key

    def _target(self, key: str) -> Path:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _below(self, prefix: str) -> Iterator[ObjectInfo]:
        start = self._path(prefix.rpartition("/")[0])
        for folder, _, names in os.walk(start):
            if Path(folder).name == INCOMING and Path(folder).parent == self.root:
                continue
            for name in names:
                path = Path(folder, name)
                key = path.relative_to(self.root).as_posix()
                if key.startswith(prefix):
                    try:
                        found = path.stat()
                    except FileNotFoundError:  # deleted by another process since the walk saw it
                        continue
                    yield ObjectInfo(key=key, size_bytes=found.st_size, modified=found.st_mtime)

    def _drop_empty(self, folder: Path) -> None:
        while folder != self.root and self.root in folder.parents:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    @contextmanager
    def _incoming(self) -> Iterator[Path]:
        folder = self.root / INCOMING
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / uuid.uuid4().hex
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            failure = _failure(error, self._uri)
            if failure is None:
                raise
            raise failure from error


def _sync(path: Path) -> None:
    """Bring a file to the disk, so that a manifest never outlives the files that it names."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _failure(error: OSError, uri: str) -> StageError | None:
    what = f"{uri}: {error.strerror}"
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return NoPermission(
                WorkerReason.STORAGE_DENIED,
                what,
                field="spec.storage.uri",
                remedy="Choose a folder that you may write to.",
            )
        case errno.ENOSPC | errno.EDQUOT:
            return Transient(
                WorkerReason.DISK_FULL, what, field="spec.storage.uri", remedy="Free space on the disk of the store."
            )
        case errno.ENOTDIR | errno.EEXIST:
            return BadInput(
                WorkerReason.STORAGE_NOT_FOUND, what, field="spec.storage.uri", remedy="Choose a folder, not a file."
            )
        case _:
            return None
