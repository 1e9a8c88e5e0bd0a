"""Two slots for models, A and B: one is served, the other one is filled; a slot counts once its mark is written.

The mark comes last, after every file was hashed and synced, so that a power loss leaves a slot whole or not a slot.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from dram_agent.disk import Disk
from dram_agent.errors import Cause, DiskFull, Unreachable
from dram_agent.trust import Trust, hashed_path
from dram_agent.web import CHUNK_BYTES, NOT_SATISFIABLE, OK, PARTIAL, Web
from dram_workers.model import Model

MARK = "slot.json"
MANIFEST = "manifest.json"
SPARE_BYTES = 64 << 20
"""Left free on the disk for logs and state."""
NO_SPACE = (28, 122)
"""ENOSPC and EDQUOT."""
FILE_SECONDS = 6 * 3600.0
"""The longest that one answer may take; what came by then is kept, and the next attempt goes on from there."""


class Slot(StrEnum):
    """The two places for a model."""

    A = "a"
    B = "b"

    @property
    def other(self) -> "Slot":
        """The one that is not this."""
        return Slot.B if self is Slot.A else Slot.A


class Held(Model):
    """What a whole slot holds; written last."""

    release: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Digest of the release."""
    artifact: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Digest of the build's manifest."""
    model: str
    """The model's file, relative to the slot."""
    golden: str | None = None
    """The golden file, where the artifact brings one."""


class _File(Model):
    model_config = ConfigDict(extra="ignore")

    path: Annotated[str, Field(min_length=1, max_length=255)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]
    role: str | None = None


class _Manifest(Model):
    model_config = ConfigDict(extra="ignore")

    files: Annotated[tuple[_File, ...], Field(min_length=1, max_length=1000)]


@dataclass(frozen=True)
class Slots:
    """The slots on the disk."""

    disk: Disk
    trust: Trust
    web: Web
    free_bytes: Callable[[], int]
    on_progress: Callable[[int], None] = lambda _: None
    """Called with the bytes of every piece that came."""

    def held(self) -> dict[Slot, Held]:
        """What the whole slots hold."""
        found = {}
        for slot in Slot:
            body = self.disk.read(f"slots/{slot}/{MARK}")
            if body is None:
                continue
            try:
                found[slot] = Held.model_validate_json(body)
            except ValidationError:
                # a mark of another version of the agent: the slot is filled again
                continue
        return found

    def model_file(self, slot: Slot) -> Path:
        """The model's file of a whole slot."""
        return self.disk.path(f"slots/{slot}") / self.held()[slot].model

    def fill(self, slot: Slot, release: str, manifest_path: str) -> Held:
        """Download a build into a slot that is not served. Refused, Unreachable, DiskFull; goes on where it stopped."""
        folder = f"slots/{slot}"
        self.disk.remove(f"{folder}/{MARK}")
        body = self.trust.small_target(manifest_path)
        artifact = hashlib.sha256(body).hexdigest()
        base = manifest_path.rpartition("/")[0]
        if base != f"artifacts/{artifact}":
            raise self.trust.refuse(Cause.TAMPERED, f"{manifest_path} is the manifest of {artifact}")
        files = self._files(body)
        halves = {f"{file.path}.part" for file in files} if self.disk.read(f"{folder}/{MANIFEST}") == body else set()
        self._drop_others(folder, {MANIFEST, *(file.path for file in files), *halves})
        self._check_space(folder, files)
        self.disk.write(f"{folder}/{MANIFEST}", body)
        try:
            for file in files:
                self._fetch(f"{base}/{file.path}", f"{folder}/{file.path}", file)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self.clear(slot)
            raise DiskFull(f"the disk is full at {artifact}") from error
        held = _held(release, artifact, files)
        self.disk.write(f"{folder}/{MARK}", held.model_dump_json().encode())
        return held

    def clear(self, slot: Slot) -> None:
        """Empty a slot; its mark goes first."""
        self.disk.remove(f"slots/{slot}/{MARK}")
        self.disk.remove(f"slots/{slot}")

    def _files(self, body: bytes) -> tuple[_File, ...]:
        try:
            files = _Manifest.model_validate_json(body).files
        except ValidationError as error:
            raise self.trust.refuse(Cause.MALFORMED, "the manifest cannot be read") from error
        for file in files:
            parts = PurePosixPath(file.path).parts
            if ".." in parts or file.path.startswith("/") or file.path in (MARK, MANIFEST):
                raise self.trust.refuse(Cause.TAMPERED, f"the manifest names {file.path!r}")
        return files

    def _drop_others(self, folder: str, wanted: set[str]) -> None:
        """Delete what the artifact does not have. Halves of its own files stay: those of another one may bear the same names."""
        root = self.disk.path(folder)
        for path in [path for path in root.rglob("*") if path.is_file()] if root.is_dir() else []:
            name = path.relative_to(root).as_posix()
            if name not in wanted:
                self.disk.remove(f"{folder}/{name}")

    def _check_space(self, folder: str, files: tuple[_File, ...]) -> None:
        missing = sum(file.size - self._present(f"{folder}/{file.path}") for file in files)
        if missing + SPARE_BYTES > self.free_bytes():
            raise DiskFull(f"{missing} bytes are missing, {self.free_bytes()} are free")

    def _present(self, name: str) -> int:
        for each in (name, f"{name}.part"):
            if self.disk.path(each).is_file():
                return self.disk.path(each).stat().st_size
        return 0

    def _fetch(self, path: str, name: str, file: _File) -> None:
        """One file: signed by the release key, named by the manifest, both with the same digest."""
        info = self.trust.target(path)
        if info.hashes.get("sha256") != file.sha256 or info.length != file.size:
            raise self.trust.refuse(Cause.TAMPERED, f"{path} is signed as another file than the manifest names")
        if self.disk.path(name).is_file():
            if _sha256(self.disk.path(name)) == file.sha256:
                return
            self.disk.remove(name)
        part = f"{name}.part"
        self._download(f"targets/{hashed_path(info)}", part, file.size)
        if _sha256(self.disk.path(part)) != file.sha256:
            self.disk.remove(part)
            raise self.trust.refuse(Cause.TAMPERED, f"{path} is not the file that was signed")
        self.disk.rename(part, name)

    def _download(self, url: str, part: str, size: int) -> None:
        """Append what is missing. The server may ignore the range, then it begins anew; one in trouble costs nothing that is here."""
        have = self._present(part)
        if have > size:
            self.disk.remove(part)
            have = 0
        if have == size and self.disk.path(part).is_file():
            return
        answer = self.web.open(url, {"Range": f"bytes={have}-"} if have else None)
        goes_on = answer.status == PARTIAL and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if have and answer.status in (OK, PARTIAL, NOT_SATISFIABLE) and not goes_on:
            self.disk.remove(part)
            have = 0
            if answer.status != OK:
                answer.close()
                answer = self.web.open(url)
        if answer.status not in (OK, PARTIAL):
            answer.close()
            raise Unreachable(f"{url}: HTTP {answer.status}")
        with self.disk.append(part) as out:
            for chunk in self.trust.transfer(answer, FILE_SECONDS):
                have += len(chunk)
                if have > size:
                    break
                out.write(chunk)
                self.on_progress(len(chunk))
        if have > size:
            answer.close()
            self.disk.remove(part)
            raise self.trust.refuse(Cause.OVERSIZED, f"{url} has more than {size} bytes")
        if have < size:
            raise Unreachable(f"{url} ended after {have} of {size} bytes")


def _held(release: str, artifact: str, files: tuple[_File, ...]) -> Held:
    models = [file.path for file in files if file.role == "model"] or [files[0].path]
    golden = [file.path for file in files if file.role == "golden"]
    return Held(release=release, artifact=artifact, model=models[0], golden=golden[0] if golden else None)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
            digest.update(chunk)
    return digest.hexdigest()
