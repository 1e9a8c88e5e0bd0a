"""Failures of an S3 server, each in the words of spec.storage."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from dram_workers.errors import BadInput, NoPermission, StageError, Transient, WorkerReason
from dram_workers.stages import StoreSettings
from dram_workers.store.objects import ObjectStore
from dram_workers.store.open import open_store
from tests.cluster.s3 import S3Server

CALLS: dict[str, Callable[[ObjectStore, Path], object]] = {
    "put_bytes": lambda store, _: store.put_bytes("key", b"1"),
    "put_bytes if_absent": lambda store, _: store.put_bytes("key", b"1", if_absent=True),
    "put_file": lambda store, path: store.put_file("key", path),
    "get_bytes": lambda store, _: store.get_bytes("key"),
    "list": lambda store, _: list(store.list("")),
    "delete": lambda store, _: store.delete(["key"]),
}


def failure(settings: StoreSettings, call: str, tmp_path: Path) -> StageError:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with pytest.raises(StageError) as caught:
        CALLS[call](open_store(settings), path)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("call", CALLS)
def test_a_missing_bucket_is_named(s3_settings: StoreSettings, call: str, tmp_path: Path) -> None:
    error = failure(s3_settings.model_copy(update={"uri": "s3://no-such-bucket/p"}), call, tmp_path)
    assert isinstance(error, BadInput)
    assert (error.reason, error.field) == (WorkerReason.STORAGE_NOT_FOUND, "spec.storage.uri")
    assert "s3://no-such-bucket/p" in error.message


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_secret_is_no_permission(
    s3_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch, call: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-owners-secret")
    error = failure(s3_settings, call, tmp_path)
    assert isinstance(error, NoPermission)
    assert (error.reason, error.field) == (WorkerReason.STORAGE_DENIED, "spec.storage.secretRef")


@pytest.mark.parametrize("access_key", ["nobody", None])
def test_unknown_or_absent_credentials_are_no_permission(
    s3_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch, access_key: str | None, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    if access_key is None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    else:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", access_key)
    assert isinstance(failure(s3_settings, "get_bytes", tmp_path), NoPermission)


def test_a_reader_may_not_write(
    s3_server: S3Server, s3_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in s3_server.reader.environment().items():
        monkeypatch.setenv(name, value)
    assert open_store(s3_settings).get_bytes("key") is None
    assert isinstance(failure(s3_settings, "put_bytes", tmp_path), NoPermission)


@pytest.mark.parametrize("call", CALLS)
def test_a_server_that_is_down_is_worth_another_attempt(s3_settings: StoreSettings, call: str, tmp_path: Path) -> None:
    error = failure(s3_settings.model_copy(update={"endpoint": "http://127.0.0.1:9"}), call, tmp_path)
    assert isinstance(error, Transient)
    assert (error.reason, error.field) == (WorkerReason.STORAGE_UNAVAILABLE, "spec.storage.endpoint")
    assert "http://127.0.0.1:9" in error.message


def test_an_endpoint_that_is_no_url_is_refused(s3_settings: StoreSettings) -> None:
    with pytest.raises(BadInput) as caught:
        open_store(s3_settings.model_copy(update={"endpoint": "s3.example.com"}))
    assert caught.value.field == "spec.storage.endpoint"


def test_a_bucket_name_that_cannot_be_is_refused(s3_settings: StoreSettings, tmp_path: Path) -> None:
    error = failure(s3_settings.model_copy(update={"uri": "s3://Not_A_Bucket"}), "get_bytes", tmp_path)
    assert isinstance(error, BadInput)
    assert error.field == "spec.storage.uri"


def test_a_certificate_must_be_trusted(s3_settings: StoreSettings, tmp_path: Path) -> None:
    with S3Server(tls=True) as server:
        server.bucket("tls")
        settings = s3_settings.model_copy(update={"uri": "s3://tls", "endpoint": server.endpoint})
        error = failure(settings, "get_bytes", tmp_path)
        assert isinstance(error, BadInput)
        assert error.field == "spec.storage.caBundle"
        trusting = open_store(settings.model_copy(update={"ca_file": str(server.ca_file)}))
        assert trusting.put_bytes("key", b"1", if_absent=True)


def test_no_secret_reaches_the_log_or_the_message(
    s3_server: S3Server, s3_settings: StoreSettings, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    open_store(s3_settings).put_bytes("key", b"1")
    error = failure(s3_settings.model_copy(update={"uri": "s3://no-such-bucket"}), "get_bytes", tmp_path)
    assert s3_server.owner.secret_key not in caplog.text + str(error) + str(error.remedy)
