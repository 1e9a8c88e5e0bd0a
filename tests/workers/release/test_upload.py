"""The release pod between two buckets of a real S3 server: what it takes along, and what it refuses to."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import botocore.auth
import pytest

from dram_operator.adapters.releases.bucket import Bucket, BucketSettings
from dram_operator.adapters.releases.signing import file_key, grant_uploads, missing_files
from dram_workers.entry import perform_release
from dram_workers.errors import ExitCode, WorkerReason
from dram_workers.release.contract import MANIFEST, ArtifactFile, ReleaseConfig, Upload
from dram_workers.results import StageMessage
from dram_workers.stages import StoreSettings
from tests.cluster.s3 import S3Server

MODEL, CARD = b"weights" * 1000, b"# card"


def a_manifest(files: dict[str, bytes], **more: object) -> bytes:
    entries = [
        {"path": path, "sha256": hashlib.sha256(body).hexdigest(), "size": len(body)} for path, body in files.items()
    ]
    return json.dumps({"files": entries, **more}).encode()


@dataclass
class Errand:
    """An artifact in a tenant's folder, and a repository that lacks it."""

    server: S3Server
    folder: Path
    source: str
    repository: Bucket
    files: dict[str, bytes] = field(default_factory=lambda: {"model.gguf": MODEL, "docs/card.md": CARD})
    manifest: bytes = b""
    fields: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.manifest = a_manifest(self.files)
        for path, body in [*self.files.items(), (MANIFEST, self.manifest)]:
            self.put(path, body)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.manifest).hexdigest()

    def put(self, path: str, body: bytes) -> None:
        bucket, _, prefix = self.source.removeprefix("s3://").partition("/")
        self.server.client().put_object(Bucket=bucket, Key=f"{prefix}/{path}", Body=body)

    def remove(self, path: str) -> None:
        bucket, _, prefix = self.source.removeprefix("s3://").partition("/")
        self.server.client().delete_object(Bucket=bucket, Key=f"{prefix}/{path}")

    def lacking(self) -> list[ArtifactFile]:
        return missing_files(self.repository, self.digest, self.manifest)

    def config(self, uploads: list[Upload] | None = None, **more: Any) -> Path:
        granted = grant_uploads(self.repository, self.digest, self.lacking()) if uploads is None else uploads
        store = StoreSettings(uri=self.source, endpoint=self.server.endpoint, path_style=True)
        (self.folder / "scratch").mkdir(exist_ok=True)
        values = {"digest": self.digest, "fields": self.fields, "scratch": str(self.folder / "scratch"), **more}
        path = self.folder / "config.json"
        path.write_text(ReleaseConfig(store=store, uploads=tuple(granted), **values).model_dump_json())
        return path

    def run(self, uploads: list[Upload] | None = None, **more: Any) -> tuple[StageMessage, ExitCode]:
        return perform_release(self.config(uploads, **more))

    def arrived(self) -> dict[str, bytes]:
        stored = {
            path: self.repository.get(file_key(self.digest, ArtifactFile(path=path, sha256=_sha(body), size=0)))
            for path, body in [*self.files.items(), (MANIFEST, self.manifest)]
        }
        return {path: found.body for path, found in stored.items() if found}


def _sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def errand(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Errand:
    for name, value in s3_server.owner.environment().items():
        monkeypatch.setenv(name, value)
    repository = Bucket(BucketSettings(f"{s3_server.bucket('releases')}/{uuid.uuid4().hex}", s3_server.endpoint))
    return Errand(s3_server, tmp_path, f"{s3_server.bucket('tenant')}/{uuid.uuid4().hex}", repository)


def test_an_artifact_arrives_file_by_file(errand: Errand) -> None:
    message, code = errand.run()
    assert (code, message.reason) == (ExitCode.DONE, "Completed"), message
    assert errand.arrived() == {**errand.files, MANIFEST: errand.manifest}
    assert errand.lacking() == []
    assert list((errand.folder / "scratch").iterdir()) == []


def test_only_what_is_asked_for_is_sent(errand: Errand) -> None:
    errand.run(grant_uploads(errand.repository, errand.digest, errand.lacking()[-1:]))
    assert [*errand.arrived()] == [MANIFEST]
    message, _ = errand.run()
    assert message.message == f"2 files, {len(MODEL) + len(CARD)} bytes"


def test_the_tenants_credentials_need_not_write(errand: Errand, monkeypatch: pytest.MonkeyPatch) -> None:
    config = errand.config()
    for name, value in errand.server.reader.environment().items():
        monkeypatch.setenv(name, value)
    assert perform_release(config)[1] == ExitCode.DONE


@pytest.mark.parametrize(
    ("spoil", "want_reason", "want_text"),
    [
        (lambda e: e.remove(MANIFEST), WorkerReason.SOURCE_NOT_FOUND, "there is no"),
        (lambda e: e.put(MANIFEST, e.manifest + b" "), WorkerReason.DIGEST_MISMATCH, "is to be released"),
        (lambda e: e.remove("model.gguf"), WorkerReason.SOURCE_NOT_FOUND, "model.gguf"),
        (lambda e: e.put("model.gguf", b"W" + MODEL[1:]), WorkerReason.DIGEST_MISMATCH, "model.gguf"),
        (lambda e: e.put("docs/card.md", CARD + b"!"), WorkerReason.DIGEST_MISMATCH, "docs/card.md is 7 bytes"),
    ],
    ids=["no manifest", "another manifest", "a file missing", "a file tampered with", "a file longer"],
)
def test_what_is_not_the_artifact_is_not_sent(
    errand: Errand, spoil: Any, want_reason: WorkerReason, want_text: str
) -> None:
    spoil(errand)
    message, code = errand.run()
    assert (code, message.reason, message.field) == (ExitCode.BAD_INPUT, want_reason, "spec.artifact")
    assert want_text in message.message
    assert message.remedy
    assert errand.arrived() == {}
    assert list((errand.folder / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("manifest", "want"),
    [
        (b"{}", "cannot be read"),
        (a_manifest({"../model": b""}), "at most one folder"),
        (a_manifest({MANIFEST: b""}), "at most one folder"),
        (a_manifest({"a": b""}, padding="x" * 256_000), "longer than"),
        (b'{"files":[{"path":"a","sha256":"' + b"0" * 64 + b'","size":5368709121}]}', "one upload takes at most"),
    ],
    ids=["no files", "a path outside", "the manifest itself", "too long a manifest", "too long a file"],
)
def test_what_devices_or_the_repository_could_not_take_is_refused_at_once(
    errand: Errand, manifest: bytes, want: str
) -> None:
    uploads = grant_uploads(errand.repository, errand.digest, errand.lacking())
    errand.manifest = manifest
    errand.put(MANIFEST, manifest)
    message, code = errand.run(uploads)
    assert (code, message.reason) == (ExitCode.BAD_INPUT, WorkerReason.ARTIFACT_UNFIT)
    assert want in message.message


def test_the_server_takes_no_other_bytes_than_those_of_the_digest(errand: Errand) -> None:
    """A pod that lies: its files and its manifest agree with each other, and not with what was granted."""
    uploads = grant_uploads(errand.repository, errand.digest, errand.lacking())
    honest = errand.files
    errand.files = {path: bytes(len(body)) for path, body in honest.items()}
    errand.__post_init__()
    message, code = errand.run(uploads)
    assert (code, message.reason) == (ExitCode.TRANSIENT, WorkerReason.UPLOAD_REFUSED), message
    assert list(errand.repository.list("")) == []


def test_an_expired_url_is_worth_another_attempt_with_a_fresh_one(
    errand: Errand, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = errand.lacking()
    with monkeypatch.context() as past:
        long_ago = datetime.now(UTC) - timedelta(hours=2)
        past.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: long_ago.replace(tzinfo=None))
        uploads = grant_uploads(errand.repository, errand.digest, lacking)
    message, code = errand.run(uploads)
    assert (code, message.reason) == (ExitCode.TRANSIENT, WorkerReason.UPLOAD_REFUSED)
    assert "expired" in message.message
    assert "Signature" not in message.message
    assert errand.arrived() == {}
    assert errand.run()[1] == ExitCode.DONE


def test_a_server_that_is_away_is_named_without_its_signature(errand: Errand, monkeypatch: pytest.MonkeyPatch) -> None:
    from dram_workers.release import upload

    monkeypatch.setattr(upload, "TRIES", upload.TRIES.new(total=0))
    away = [Upload(path=MANIFEST, url="http://127.0.0.1:9/x?X-Amz-Signature=abc", headers={})]
    message, code = errand.run(away)
    assert (code, message.reason) == (ExitCode.TRANSIENT, WorkerReason.UPLOAD_REFUSED)
    assert "127.0.0.1:9 did not take manifest.json" in message.message
    assert "abc" not in message.message


def test_faults_of_the_store_name_the_field_that_the_user_wrote(
    errand: Errand, monkeypatch: pytest.MonkeyPatch
) -> None:
    errand.fields = {"spec.storage": "spec.artifact.storage", "spec.storage.uri": "spec.artifact.uri"}
    config = errand.config()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    message, code = perform_release(config)
    assert (code, message.field) == (ExitCode.NO_PERMISSION, "spec.artifact.storage.secretRef")
    errand.source = "s3://no-such-bucket/x"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", errand.server.owner.secret_key)
    message, code = errand.run([])
    assert (code, message.field) == (ExitCode.BAD_INPUT, "spec.artifact.uri")


def test_a_config_of_another_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    message, code = perform_release(tmp_path / "config.json")
    assert (code, message.reason) == (ExitCode.BAD_INPUT, WorkerReason.CONFIG_INVALID)


def test_sigterm_ends_the_pod_in_the_middle_of_a_file(errand: Errand) -> None:
    """The process is the pod's: told to stop while a server takes its time, it says so and leaves nothing half."""
    with _SlowServer() as slow:
        big = {"model.gguf": os.urandom(64 << 20)}
        errand.files = big
        errand.__post_init__()
        uploads = [Upload(path="model.gguf", url=slow.url, headers={})]
        log = errand.folder / "termination-log"
        with subprocess.Popen(
            [sys.executable, "-m", "dram_workers", "release", "--config", str(errand.config(uploads))],
            env={**os.environ, "DRAM_TERMINATION_LOG": str(log)},
        ) as process:
            assert slow.began.wait(60)
            process.send_signal(signal.SIGTERM)
            slow.go_on.set()
            assert process.wait(60) == ExitCode.TERMINATED
    assert StageMessage.model_validate_json(log.read_text()).reason == WorkerReason.INTERRUPTED


class _SlowServer:
    """Takes the beginning of a body, and the rest when it is told to."""

    def __enter__(self) -> Self:
        self.began, self.go_on = threading.Event(), threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/x"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.recv(1 << 16)
            self.began.set()
            self.go_on.wait(60)
            while connection.recv(1 << 16):
                time.sleep(0)
