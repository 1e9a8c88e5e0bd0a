"""Manifests: what a folder holds, by SHA-256, and where it came from."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from dram_workers.model import Model
from dram_workers.results import StageResult
from dram_workers.stages import StageKind, canonical_json

MANIFEST = "manifest.json"
CHUNK_BYTES = 1 << 20


class FileEntry(Model):
    """One file of a tree."""

    path: str
    """Relative to the tree's root, with `/` between folders."""
    sha256: str
    size: int
    """Bytes."""
    role: str | None = None
    """What the file is for, e.g. `model`, where a reader needs to know."""


class Manifest(Model):
    """A finished stage. Written last, so a folder without one does not exist for readers."""

    kind: StageKind
    stage: str
    key: str
    attempt: int
    files: tuple[FileEntry, ...]
    """Every file of the stage's folder but this one; paths begin with the output's name."""
    outputs: dict[str, str]
    """Digest of each output, by name."""
    inputs: dict[str, str]
    """Digest of each input, by name."""
    recipe: int
    """Recipe version of the kind."""
    identity: dict[str, object]
    """The recipe, seeds included."""
    toolchain: dict[str, str]
    """Versions of the packages and the CPU flags that made it."""
    started_at: str
    finished_at: str
    """RFC 3339, UTC."""
    result: StageResult
    """Measures and facts included."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, as hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def describe(path: Path) -> tuple[FileEntry, ...]:
    """Every file below a folder, sorted by path; for a file, that file under its own name."""
    if path.is_file():
        return (_entry(path, path.name),)
    if not path.is_dir():
        raise FileNotFoundError(path)
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    return tuple(_entry(file, relative) for relative, file in files)


def tree_digest(files: Iterable[FileEntry]) -> str:
    """`sha256:…` over the sorted (path, SHA-256, size) of the files; a single file is a tree of one."""
    rows = sorted((file.path, file.sha256, file.size) for file in files)
    return "sha256:" + hashlib.sha256(canonical_json(rows)).hexdigest()


def digest_of(path: Path) -> str:
    """The tree digest of a local file or folder."""
    return tree_digest(describe(path))


def _entry(path: Path, relative: str) -> FileEntry:
    return FileEntry(path=relative, sha256=file_sha256(path), size=path.stat().st_size)
