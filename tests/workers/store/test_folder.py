"""A folder as an object store."""

from pathlib import Path

import pytest

from dram_workers.errors import BadInput
from dram_workers.stages import StoreSettings
from dram_workers.store.folder import INCOMING, FolderStore
from dram_workers.store.open import open_store


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def test_an_object_is_read_as_it_was_written(store: FolderStore) -> None:
    assert store.put_bytes("stages/a/manifest.json", b"{}")
    assert store.get_bytes("stages/a/manifest.json") == b"{}"


def test_an_absent_object_is_none(store: FolderStore) -> None:
    store.put_bytes("a/b", b"")
    assert [store.get_bytes(key) for key in ("nothing", "a", "a/b/c")] == [None, None, None]


def test_the_first_conditional_write_wins(store: FolderStore) -> None:
    assert store.put_bytes("manifest.json", b"first", if_absent=True)
    assert not store.put_bytes("manifest.json", b"second", if_absent=True)
    assert store.get_bytes("manifest.json") == b"first"


def test_an_unconditional_write_replaces(store: FolderStore) -> None:
    store.put_bytes("report.html", b"first")
    assert store.put_bytes("report.html", b"second")
    assert store.get_bytes("report.html") == b"second"


def test_files_travel_whole(store: FolderStore, tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"x" * 3_000_000)
    store.put_file("artifacts/model.gguf", source)
    source.write_bytes(b"changed later")
    store.get_file("artifacts/model.gguf", tmp_path / "down" / "model.gguf")
    assert (tmp_path / "down" / "model.gguf").read_bytes() == b"x" * 3_000_000


def test_an_absent_file_is_not_found(store: FolderStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.get_file("nothing", tmp_path / "nothing")


def test_a_listing_has_prefix_and_order_and_no_file_on_its_way(store: FolderStore) -> None:
    for key in ("b/2", "b/10", "a", "b-c", "bb/x"):
        store.put_bytes(key, b"12345")
    (store.root / INCOMING / "left-by-a-killed-writer").write_bytes(b"half")
    assert [info.key for info in store.list("b")] == ["b-c", "b/10", "b/2", "bb/x"]
    assert [info.key for info in store.list("b/")] == ["b/10", "b/2"]
    assert [info.key for info in store.list("")] == ["a", "b-c", "b/10", "b/2", "bb/x"]
    assert {info.size_bytes for info in store.list("")} == {5}


def test_deleting_leaves_no_empty_folder(store: FolderStore) -> None:
    store.put_bytes("stages/data/k/x", b"")
    store.put_bytes("stages/train/k/x", b"")
    store.delete(["stages/data/k/x", "stages/data/k/never-there"])
    assert [info.key for info in store.list("")] == ["stages/train/k/x"]
    assert not (store.root / "stages/data").exists()


def test_a_key_stays_below_the_root(store: FolderStore) -> None:
    with pytest.raises(ValueError, match="is no key"):
        store.get_bytes("a/../../etc/passwd")


def test_a_file_where_a_folder_belongs_names_the_field(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput) as caught:
        FolderStore(tmp_path / "file").put_bytes("key", b"")
    assert caught.value.field == "spec.storage.uri"


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
