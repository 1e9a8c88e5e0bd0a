"""The release pod's work: read the artifact, check every file, PUT what the repository lacks.

The pod holds the tenant's credentials and no others. What it may write is in the URLs that the operator signed: each
takes the bytes of one digest, and no others, under one name. Going on after a failure costs nothing that arrived.
"""

import hashlib
import ssl
import threading
from io import FileIO
from pathlib import Path

import urllib3
from pydantic import ValidationError

from dram_workers.errors import BadInput, Interrupted, StageError, Transient, WorkerReason
from dram_workers.release.contract import (
    LARGEST_MANIFEST,
    MANIFEST,
    ArtifactFile,
    ArtifactManifest,
    ReleaseConfig,
    Upload,
    is_beside_manifest,
)
from dram_workers.results import StageMessage
from dram_workers.store.manifest import CHUNK_BYTES, file_sha256
from dram_workers.store.objects import ObjectStore
from dram_workers.store.open import open_store

CONNECT_SECONDS = 10.0
READ_SECONDS = 300.0
"""A server may take its time to digest gigabytes before it answers."""
TRIES = urllib3.Retry(total=3, status_forcelist=(500, 502, 503, 504), backoff_factor=1.0, raise_on_status=False)
FORBIDDEN = 403
FIRST_ERROR = 300
LARGEST_FILE = 5 * 2**30
"""The most that S3 takes in one PUT."""


def release(config: ReleaseConfig, stopping: threading.Event) -> StageMessage:
    """Upload what is asked for; a StageError names the field that the user wrote."""
    try:
        return _release(config, open_store(config.store), stopping)
    except StageError as error:
        raise _in_the_users_words(error, config.fields) from error


def _release(config: ReleaseConfig, store: ObjectStore, stopping: threading.Event) -> StageMessage:
    body = _manifest(config, store)
    files = _files(config, body)
    _check_presence(files, store)
    server = _Server(config, stopping)
    sent = 0
    for upload in config.uploads:
        if upload.path == MANIFEST:
            path = Path(config.scratch, "upload")
            path.write_bytes(body)
        else:
            path = _fetch(files[upload.path], store, config)
        sent += path.stat().st_size
        server.put(upload, path)
        path.unlink()
    return StageMessage(reason="Completed", message=f"{len(config.uploads)} files, {sent} bytes")


def _manifest(config: ReleaseConfig, store: ObjectStore) -> bytes:
    body = store.get_bytes(MANIFEST, first=LARGEST_MANIFEST + 1)
    if body is None:
        raise _not_found(store.uri(MANIFEST))
    if len(body) > LARGEST_MANIFEST:
        raise _unfit(f"{store.uri(MANIFEST)} is longer than the {LARGEST_MANIFEST} bytes that a device reads")
    if (found := hashlib.sha256(body).hexdigest()) != config.digest:
        raise _changed(store.uri(MANIFEST), found, config.digest)
    return body


def _files(config: ReleaseConfig, body: bytes) -> dict[str, ArtifactFile]:
    """The files by path. BadInput when devices or the repository could not take one."""
    try:
        files = ArtifactManifest.model_validate_json(body).files
    except ValidationError as error:
        raise _unfit(f"the manifest {config.digest} cannot be read: {error.errors()[0]['msg']}") from error
    for file in files:
        if not is_beside_manifest(file.path):
            raise _unfit(
                f"the manifest names {file.path!r}: a path has at most one folder and stays below the manifest"
            )
        if file.size > LARGEST_FILE:
            raise _unfit(f"{file.path} has {file.size} bytes, and one upload takes at most {LARGEST_FILE}")
    return {file.path: file for file in files}


def _check_presence(files: dict[str, ArtifactFile], store: ObjectStore) -> None:
    """Find what is missing or too short before anything is sent."""
    sizes = {info.key: info.size_bytes for info in store.list("")}
    for path, file in files.items():
        if path not in sizes:
            raise _not_found(store.uri(path))
        if sizes[path] != file.size:
            raise _changed(store.uri(path), f"{sizes[path]} bytes", f"{file.size} bytes")


def _fetch(file: ArtifactFile, store: ObjectStore, config: ReleaseConfig) -> Path:
    """One file on this machine, checked."""
    path = Path(config.scratch, "upload")
    try:
        store.get_file(file.path, path)
    except FileNotFoundError as error:
        raise _not_found(store.uri(file.path)) from error
    found = file_sha256(path)
    if found != file.sha256:
        path.unlink()
        raise _changed(store.uri(file.path), found, file.sha256)
    return path


class _Server:
    """The repository's server, as far as the URLs reach."""

    def __init__(self, config: ReleaseConfig, stopping: threading.Event) -> None:
        trust = ssl.create_default_context(cafile=config.ca_file)
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        self._pool = urllib3.PoolManager(ssl_context=trust, timeout=timeout, retries=TRIES, blocksize=CHUNK_BYTES)
        self._stopping = stopping

    def put(self, upload: Upload, path: Path) -> None:
        """Send one file. Transient when it was not taken: another attempt gets other URLs."""
        headers = upload.headers | {"Content-Length": str(path.stat().st_size)}
        with _Body(path, self._stopping) as body:
            try:
                answer = self._pool.request("PUT", upload.url, body=body, headers=headers, redirect=False)
            except urllib3.exceptions.HTTPError as error:
                host = urllib3.util.parse_url(upload.url).netloc
                raise _refused(f"{host} did not take {upload.path}: {_without_url(error, upload)}") from error
        if answer.status >= FIRST_ERROR:
            expired = "; its URL may have expired" if answer.status == FORBIDDEN else ""
            raise _refused(f"{upload.path}: HTTP {answer.status}{expired}: {_code(answer.data)}")


class _Body(FileIO):
    """A file to send, that ends the sending when the pod is told to stop."""

    def __init__(self, path: Path, stopping: threading.Event) -> None:
        super().__init__(path)
        self._stopping = stopping

    def read(self, size: int | None = -1, /) -> bytes:
        if self._stopping.is_set():
            raise Interrupted(WorkerReason.INTERRUPTED, "stopped while a file was on its way")
        return super().read(-1 if size is None else size)


def _without_url(error: Exception, upload: Upload) -> str:
    """What went wrong, without the URL: its signature belongs into no message."""
    reason = getattr(error, "reason", None) or error
    return f"{type(reason).__name__}: {reason}".replace(upload.url, "").split("(Caused by")[0][:200]


def _code(body: bytes) -> str:
    """The word of S3 for what is wrong, from its XML."""
    text = body[:4096].decode(errors="replace")
    return text.partition("<Code>")[2].partition("</Code>")[0] or "no reason given"


def _in_the_users_words(error: StageError, fields: dict[str, str]) -> StageError:
    for ours in sorted(fields, key=len, reverse=True):
        if error.field and error.field.startswith(ours):
            error.field = fields[ours] + error.field.removeprefix(ours)
            break
    return error


def _not_found(uri: str) -> BadInput:
    return BadInput(
        WorkerReason.SOURCE_NOT_FOUND,
        f"there is no {uri}",
        field="spec.artifact",
        remedy="Name a folder with a manifest.json and every file that it names.",
    )


def _changed(uri: str, found: str, wanted: str) -> BadInput:
    return BadInput(
        WorkerReason.DIGEST_MISMATCH,
        f"{uri} is {found}, but {wanted} is to be released",
        field="spec.artifact",
        remedy="Restore the artifact, or name the digest of what is there.",
    )


def _unfit(message: str) -> BadInput:
    return BadInput(
        WorkerReason.ARTIFACT_UNFIT,
        message,
        field="spec.artifact",
        remedy="Publish the artifact in a form that devices take.",
    )


def _refused(message: str) -> Transient:
    return Transient(
        WorkerReason.UPLOAD_REFUSED,
        message,
        remedy="Check that this pod reaches the server of the release repository.",
    )
