"""Digests of file trees."""

from pathlib import Path

import pytest

from dram_workers.store.manifest import describe, digest_of, tree_digest


def a_tree(folder: Path) -> Path:
    (folder / "b").mkdir(parents=True)
    (folder / "b/2.txt").write_text("two")
    (folder / "a.txt").write_text("one")
    return folder


def test_a_tree_is_described_in_path_order(tmp_path: Path) -> None:
    files = describe(a_tree(tmp_path / "t"))
    assert [(file.path, file.size) for file in files] == [("a.txt", 3), ("b/2.txt", 3)]
    assert files[0].sha256 == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"


def test_the_digest_does_not_depend_on_order_or_place(tmp_path: Path) -> None:
    one, two = a_tree(tmp_path / "one"), a_tree(tmp_path / "two")
    assert digest_of(one) == digest_of(two) == tree_digest(reversed(describe(one)))


@pytest.mark.parametrize("change", ["content", "name", "extra", "missing"])
def test_the_digest_depends_on_every_file(tmp_path: Path, change: str) -> None:
    tree = a_tree(tmp_path / "t")
    before = digest_of(tree)
    match change:
        case "content":
            (tree / "a.txt").write_text("two")
        case "name":
            (tree / "a.txt").rename(tree / "c.txt")
        case "extra":
            (tree / "empty").write_text("")
        case "missing":
            (tree / "b/2.txt").unlink()
    assert digest_of(tree) != before


def test_a_file_is_a_tree_of_one(tmp_path: Path) -> None:
    tree = tmp_path / "t"
    tree.mkdir()
    (tree / "model.gguf").write_bytes(b"GGUF")
    assert digest_of(tree / "model.gguf") == digest_of(tree)


def test_nothing_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest_of(tmp_path / "nothing")
