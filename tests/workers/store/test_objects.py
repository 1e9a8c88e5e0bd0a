"""What every object store does, on a folder and on a real S3 server."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dram_workers.store.objects import ObjectStore

WRITERS = 8


def test_an_object_is_read_as_it_was_written(store: ObjectStore) -> None:
    assert store.put_bytes("stages/a/manifest.json", b"{}")
    assert store.get_bytes("stages/a/manifest.json") == b"{}"


def test_the_first_bytes_can_be_read_alone(store: ObjectStore) -> None:
    store.put_bytes("model.safetensors", b"header and the rest")
    assert store.get_bytes("model.safetensors", first=6) == b"header"
    assert store.get_bytes("absent", first=6) is None


def test_an_absent_object_is_none(store: ObjectStore) -> None:
    store.put_bytes("a/b", b"")
    assert [store.get_bytes(key) for key in ("nothing", "a", "a/b/c")] == [None, None, None]


def test_the_first_conditional_write_wins(store: ObjectStore) -> None:
    assert store.put_bytes("manifest.json", b"first", if_absent=True)
    assert not store.put_bytes("manifest.json", b"second", if_absent=True)
    assert store.get_bytes("manifest.json") == b"first"


def test_of_many_conditional_writers_at_once_one_wins(store: ObjectStore) -> None:
    with ThreadPoolExecutor(WRITERS) as pool:
        written = list(pool.map(lambda n: store.put_bytes("manifest.json", b"%d" % n, if_absent=True), range(WRITERS)))
    assert sum(written) == 1
    assert store.get_bytes("manifest.json") == b"%d" % written.index(True)


def test_an_unconditional_write_replaces(store: ObjectStore) -> None:
    store.put_bytes("report.html", b"first")
    assert store.put_bytes("report.html", b"second")
    assert store.get_bytes("report.html") == b"second"


def test_files_travel_whole_also_in_parts(store: ObjectStore, tmp_path: Path) -> None:
    source, content = tmp_path / "model.gguf", bytes(range(256)) * 150_000  # 38 MB: two parts
    source.write_bytes(content)
    store.put_file("artifacts/model.gguf", source)
    source.write_bytes(b"changed later")
    store.get_file("artifacts/model.gguf", tmp_path / "down" / "model.gguf")
    assert (tmp_path / "down" / "model.gguf").read_bytes() == content


def test_an_absent_file_is_not_found(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.get_file("nothing", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_listing_goes_by_prefix_also_inside_a_name(store: ObjectStore) -> None:
    for key in ("b/2", "b/10", "a", "b-c", "bb/x"):
        store.put_bytes(key, b"12345")
    assert sorted(info.key for info in store.list("b")) == ["b-c", "b/10", "b/2", "bb/x"]
    assert sorted(info.key for info in store.list("b/")) == ["b/10", "b/2"]
    assert sorted(info.key for info in store.list("")) == ["a", "b-c", "b/10", "b/2", "bb/x"]
    assert {info.size_bytes for info in store.list("")} == {5}


def test_deleting_takes_what_is_there(store: ObjectStore) -> None:
    for key in ("stages/data/k/x", "stages/train/k/x"):
        store.put_bytes(key, b"1")
    store.delete(["stages/data/k/x", "stages/data/k/never-there"])
    store.delete([])
    assert [info.key for info in store.list("")] == ["stages/train/k/x"]


def test_a_uri_is_the_root_and_the_key(store: ObjectStore) -> None:
    assert store.uri("stages/x").endswith("/stages/x")
    assert store.uri("stages/x").startswith(store.uri(""))
