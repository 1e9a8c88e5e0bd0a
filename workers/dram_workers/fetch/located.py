"""Finding what a URI leads to, without downloading more than a listing."""

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dram_workers.errors import BadInput, StageError, WorkerReason
from dram_workers.fetch.hub import HubTree, is_read
from dram_workers.stages import Execution
from dram_workers.store.folder import FolderStore
from dram_workers.store.location import join, local_path
from dram_workers.store.manifest import FileEntry, describe
from dram_workers.store.objects import FileTree, ObjectInfo
from dram_workers.store.open import open_store

HASHED_BYTES = 64 << 20
"""Objects up to this size are pinned by the SHA-256 of their content, which has to be read for it; larger ones by the
server's own mark: the hub's SHA-256, or `etag:` and S3's ETag."""

MODEL_FIELDS = frozenset({"spec.teacher.uri", "spec.student.uri", "spec.golden.embedder"})


@dataclass(frozen=True)
class Located:
    """A file or folder, and how to read it."""

    uri: str
    """With a hub's branch replaced by its commit."""
    tree: FileTree
    files: tuple[ObjectInfo, ...]
    """The files, by path below `uri`; for a single file, its own name."""
    local: Path | None = None
    """The file or folder on this machine, if it is here."""

    def entries(self) -> tuple[FileEntry, ...]:
        """The files with their digests, as far as they can be had without a download of large ones."""
        if self.local is not None:
            return describe(self.local)
        return tuple(FileEntry(path=info.key, sha256=self._mark(info), size=info.size_bytes) for info in self.files)

    def read(self, path: str) -> bytes | None:
        """Content of one file; None when there is none."""
        return self.tree.get_bytes(path)

    def snapshot(self) -> Path | None:
        """For a model of the hub, its folder in the hub's own cache, downloaded where needed."""
        return self.tree.fetch() if isinstance(self.tree, HubTree) else None

    def download(self, folder: Path) -> None:
        """Download every file into `folder`."""
        for info in self.files:
            self.tree.get_file(info.key, folder / info.key)

    @property
    def is_file(self) -> bool:
        """Whether the URI leads to one file."""
        return len(self.files) == 1 and self.uri.rstrip("/").endswith("/" + self.files[0].key)

    def _mark(self, info: ObjectInfo) -> str:
        return info.sha256 or large_mark(info) or hashlib.sha256(self.tree.get_bytes(info.key) or b"").hexdigest()


def locate(uri: str, execution: Execution, field: str) -> Located:
    """Find a URI's files; BadInput that names `field` when there are none."""
    if uri.startswith("hf://"):
        return _on_hub(uri, execution, field)
    local = _package_path(uri) if uri.startswith("package://") else local_path(uri, execution.mounts)
    if local is not None:
        return _here(uri, local, field)
    if uri.startswith("s3://"):
        return _in_bucket(uri, execution, field)
    raise not_found(uri, field, "it cannot be reached from here", "Use hf://, s3:// or pvc://; file:// in local runs.")


def large_mark(info: ObjectInfo) -> str | None:
    """What stands for a large object's SHA-256 where the server does not know that."""
    return f"etag:{info.etag}" if info.etag and info.size_bytes > HASHED_BYTES else None


def not_found(uri: str, field: str, why: str, remedy: str) -> BadInput:
    """The error for a URI that leads nowhere."""
    reason = WorkerReason.MODEL_NOT_FOUND if field in MODEL_FIELDS else WorkerReason.SOURCE_NOT_FOUND
    return BadInput(reason, f"{uri}: {why}", field=field, remedy=remedy)


def download_folder(execution: Execution) -> Path:
    """Where downloads are kept."""
    return Path(execution.cache or f"{execution.scratch}/cache")


def _on_hub(uri: str, execution: Execution, field: str) -> Located:
    if field not in MODEL_FIELDS:
        raise not_found(uri, field, "only models are read from the hub", "Use s3:// or pvc://; file:// in local runs.")
    tree = HubTree(uri, field, download_folder(execution) / "hub")
    return Located(uri=tree.uri, tree=tree, files=tuple(info for info in tree.list("") if is_read(info.key)))


def _here(uri: str, path: Path, field: str) -> Located:
    if path.is_file():
        tree = FolderStore(path.parent)
        return Located(uri, tree, (ObjectInfo(path.name, path.stat().st_size, path.stat().st_mtime),), path)
    if not path.is_dir():
        raise not_found(uri, field, f"{path} does not exist", "Correct the path.")
    tree = FolderStore(path)
    files = tuple(tree.list(""))
    if not files:
        raise not_found(uri, field, f"{path} is empty", "Correct the path.")
    return Located(uri, tree, files, path)


def _in_bucket(uri: str, execution: Execution, field: str) -> Located:
    parent, _, name = uri.rstrip("/").rpartition("/")
    is_bucket = parent == "s3:/"
    try:
        store = open_store(execution.store.model_copy(update={"uri": uri.rstrip("/") if is_bucket else parent}))
        found = list(store.list("" if is_bucket else name))
    except StageError as error:
        if error.reason is WorkerReason.STORAGE_NOT_FOUND:
            raise not_found(uri, field, error.message, error.remedy or "") from error
        raise
    for info in found:
        if info.key == name:
            return Located(uri, store, (info,))
    below = open_store(execution.store.model_copy(update={"uri": uri.rstrip("/")}))
    files = tuple(below.list(""))
    if not files:
        raise not_found(uri, field, "no object has this name or prefix", "Correct the key.")
    return Located(uri.rstrip("/"), below, files)


def _package_path(uri: str) -> Path | None:
    """`package://name/folder`: data that ships in an installed Python package."""
    name, _, below = uri.removeprefix("package://").partition("/")
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / below


def shipped(package: str, below: str) -> str:
    """The URI of data in an installed package."""
    return join(f"package://{package}", below)
