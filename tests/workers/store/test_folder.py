"""What only a folder as object store does."""

from pathlib import Path

import pytest

from dram_workers.errors import BadInput, Transient, WorkerReason
from dram_workers.stages import StoreSettings
from dram_workers.store.folder import INCOMING, FolderStore
from dram_workers.store.open import open_store


def test_a_file_on_its_way_is_never_listed(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put_bytes("a", b"")
    (store.root / INCOMING / "left-by-a-killed-writer").write_bytes(b"half")
    assert [info.key for info in store.list("")] == ["a"]


def test_deleting_leaves_no_empty_folder(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put_bytes("stages/data/k/x", b"")
    store.put_bytes("stages/train/k/x", b"")
    store.delete(["stages/data/k/x"])
    assert not (tmp_path / "stages/data").exists()
    assert (tmp_path / "stages/train/k/x").exists()


def test_a_key_stays_below_the_root(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no key"):
        FolderStore(tmp_path).get_bytes("a/../../etc/passwd")


def test_a_file_where_a_folder_belongs_names_the_field(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput) as caught:
        FolderStore(tmp_path / "file").put_bytes("key", b"")
    assert caught.value.field == "spec.storage.uri"


def test_a_full_disk_is_worth_another_attempt(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    with pytest.raises(Transient) as caught, store._errors():
        Path("/dev/full").write_bytes(b"x")
    assert (caught.value.reason, caught.value.field) == (WorkerReason.DISK_FULL, "spec.storage.uri")


def test_a_mapped_bucket_is_a_folder_that_keeps_its_uri(tmp_path: Path) -> None:
    store = open_store(StoreSettings(uri="s3://models/team"), {"s3://models": str(tmp_path), "s3://model": "/nowhere"})
    store.put_bytes("stages/x", b"1")
    assert (tmp_path / "team/stages/x").read_bytes() == b"1"
    assert store.uri("stages/x") == "s3://models/team/stages/x"


def test_a_file_uri_is_a_folder(tmp_path: Path) -> None:
    store = open_store(StoreSettings(uri=(tmp_path / "with space").as_uri()))
    store.put_bytes("x", b"1")
    assert (tmp_path / "with space/x").exists()


def test_another_scheme_is_refused() -> None:
    with pytest.raises(BadInput, match="ftp://host/x is no store") as caught:
        open_store(StoreSettings(uri="ftp://host/x"))
    assert caught.value.field == "spec.storage.uri"
