"""Inputs on this machine: in place where they are here, fetched once where they are not, never unchecked."""

import shutil
import uuid
from pathlib import Path

import pytest

from dram_workers.errors import BadInput, StageError, WorkerReason
from dram_workers.fetch import located
from dram_workers.fetch.located import locate
from dram_workers.inputs import FetchedInputs
from dram_workers.stages import Execution, Input, StoreSettings
from dram_workers.store.manifest import digest_of, tree_digest
from tests.cluster.s3 import S3Server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data/sub").mkdir(parents=True)
    (tmp_path / "data/a.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "data/sub/b.txt").write_text("text")
    return tmp_path / "data"


@pytest.fixture
def here(tmp_path: Path) -> Execution:
    store = StoreSettings(uri=(tmp_path / "store").as_uri())
    return Execution(store=store, scratch=str(tmp_path / "scratch"), mounts={"pvc://claim": str(tmp_path)})


@pytest.fixture
def in_bucket(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Execution:
    for name, value in s3_server.owner.environment().items():
        monkeypatch.setenv(name, value)
    s3_server.bucket("inputs")
    store = StoreSettings(uri="s3://inputs/store", endpoint=s3_server.endpoint, path_style=True)
    return Execution(store=store, scratch=str(tmp_path / "scratch"))


def inputs(execution: Execution, tmp_path: Path, **given: Input) -> FetchedInputs:
    return FetchedInputs(given, execution, tmp_path / "work")


def test_a_local_folder_is_used_in_place(here: Execution, folder: Path, tmp_path: Path) -> None:
    found = inputs(here, tmp_path, samples=Input(uri=folder.as_uri(), digest=digest_of(folder)))
    assert found.path("samples") == folder
    assert "samples" in found
    assert "other" not in found


def test_a_mounted_claim_is_used_in_place(here: Execution, folder: Path, tmp_path: Path) -> None:
    found = inputs(here, tmp_path, samples=Input(uri="pvc://claim/data", digest=digest_of(folder)))
    assert found.path("samples") == folder


def test_changed_content_is_refused_and_the_field_is_named(here: Execution, folder: Path, tmp_path: Path) -> None:
    pinned = Input(uri=folder.as_uri(), digest=digest_of(folder))
    (folder / "a.jsonl").write_text("changed")
    with pytest.raises(BadInput) as caught:
        inputs(here, tmp_path, teacher=pinned).path("teacher")
    assert (caught.value.reason, caught.value.field) == (WorkerReason.DIGEST_MISMATCH, "spec.teacher.uri")
    assert pinned.digest in caught.value.message


def test_a_bucket_folder_is_fetched_once(
    in_bucket: Execution, s3_server: S3Server, folder: Path, tmp_path: Path
) -> None:
    uri = s3_server.upload("inputs", uuid.uuid4().hex, folder)
    given = Input(uri=uri, digest=digest_of(folder))
    path = inputs(in_bucket, tmp_path, samples=given).path("samples")
    assert digest_of(path) == given.digest
    before = (path / "a.jsonl").stat().st_mtime_ns
    assert inputs(in_bucket, tmp_path, samples=given).path("samples") == path
    assert (path / "a.jsonl").stat().st_mtime_ns == before


def test_a_bucket_file_is_a_file(in_bucket: Execution, s3_server: S3Server, folder: Path, tmp_path: Path) -> None:
    uri = s3_server.upload("inputs", f"{uuid.uuid4().hex}/a.jsonl", folder / "a.jsonl")
    s3_server.upload("inputs", uri.removeprefix("s3://inputs/") + ".backup", folder / "a.jsonl")
    given = Input(uri=uri, digest=digest_of(folder / "a.jsonl"))
    assert inputs(in_bucket, tmp_path, samples=given).path("samples").read_text() == '{"prompt": "a"}\n'


def test_a_damaged_download_is_fetched_again(
    in_bucket: Execution, s3_server: S3Server, folder: Path, tmp_path: Path
) -> None:
    uri = s3_server.upload("inputs", uuid.uuid4().hex, folder)
    given = Input(uri=uri, digest=digest_of(folder))
    path = inputs(in_bucket, tmp_path, samples=given).path("samples")
    (path / "a.jsonl").write_text("damaged")
    assert digest_of(inputs(in_bucket, tmp_path, samples=given).path("samples")) == given.digest
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_changed_object_is_refused(in_bucket: Execution, s3_server: S3Server, folder: Path, tmp_path: Path) -> None:
    uri = s3_server.upload("inputs", uuid.uuid4().hex, folder)
    given = Input(uri=uri, digest=digest_of(folder))
    (folder / "a.jsonl").write_text("changed")
    s3_server.upload("inputs", uri.removeprefix("s3://inputs/"), folder)
    with pytest.raises(BadInput, match="was pinned when the run started"):
        inputs(in_bucket, tmp_path, samples=given).path("samples")


def test_a_large_object_is_pinned_by_the_mark_of_the_server(
    in_bucket: Execution, s3_server: S3Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(located, "HASHED_BYTES", 10)
    uri = s3_server.upload("inputs", uuid.uuid4().hex, folder)
    entries = locate(uri, in_bucket, "spec.teacher.uri").entries()
    assert [entry.sha256.startswith("etag:") for entry in entries] == [True, False]
    pinned = Input(uri=uri, digest=tree_digest(entries))
    assert inputs(in_bucket, tmp_path, teacher=pinned).path("teacher").is_dir()
    (folder / "a.jsonl").write_text("another text of that length"[:16])
    s3_server.upload("inputs", uri.removeprefix("s3://inputs/"), folder)
    shutil.rmtree(tmp_path / "scratch")
    with pytest.raises(BadInput):
        inputs(in_bucket, tmp_path, teacher=pinned).path("teacher")


@pytest.mark.parametrize(
    ("uri", "field", "want_reason"),
    [
        ("s3://inputs/nothing-here", "spec.dataset.sources[0].uri", WorkerReason.SOURCE_NOT_FOUND),
        ("s3://no-such-bucket/x", "spec.teacher.uri", WorkerReason.MODEL_NOT_FOUND),
        ("file:///no/such/folder", "spec.golden.uri", WorkerReason.SOURCE_NOT_FOUND),
        ("pvc://not-mounted/x", "spec.teacher.uri", WorkerReason.MODEL_NOT_FOUND),
        ("hf://org/data", "spec.dataset.sources[0].uri", WorkerReason.SOURCE_NOT_FOUND),
    ],
)
def test_a_uri_that_leads_nowhere_names_its_field(
    in_bucket: Execution, uri: str, field: str, want_reason: WorkerReason
) -> None:
    with pytest.raises(StageError) as caught:
        locate(uri, in_bucket, field)
    assert (caught.value.reason, caught.value.field) == (want_reason, field)
    assert uri in caught.value.message
    assert caught.value.remedy
