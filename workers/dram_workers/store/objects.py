"""The one seam to an object store: a directory or an S3 bucket behind the same few calls."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing."""

    key: str
    """Relative to the store's root, with `/` between folders."""
    size_bytes: int
    modified: float
    """Seconds since the epoch."""
    etag: str | None = None
    """The server's mark of this content; absent in a folder."""
    sha256: str | None = None
    """Hex digest of the content, where the server knows it."""


class FileTree(Protocol):
    """What can be read from. Keys are relative to its root."""

    def get_bytes(self, key: str, *, first: int | None = None) -> bytes | None:
        """Read an object, or its first bytes; None when there is none."""

    def get_file(self, key: str, path: Path) -> None:
        """Download an object to a file, or link it in a folder of this machine; FileNotFoundError when there is none."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`; not every server sorts them by key."""


class ObjectStore(FileTree, Protocol):
    """Where results go. Errors are `dram_workers.errors.StageError`s that name spec.storage."""

    def put_file(self, key: str, path: Path) -> None:
        """Upload a file; readers see it whole or not at all."""

    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
        """Write an object; with `if_absent`, False when one is there already (S3's `If-None-Match: *`)."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; absent ones are no error."""

    def uri(self, key: str) -> str:
        """The full URI of a key."""
