"""Pruning takes what is old and unused, and nothing else."""

import os
from pathlib import Path

from dram_workers.publish.retention import DAY_SECONDS, prune
from dram_workers.store.folder import FolderStore

NOW = 1_800_000_000.0


def a_store(folder: Path, **ages: float) -> FolderStore:
    """Objects with their age in days; `__` in a name stands for a slash."""
    store = FolderStore(folder)
    for name, days in ages.items():
        key = name.replace("__", "/")
        store.put_bytes(key, b"1")
        os.utime(folder / key, (NOW - days * DAY_SECONDS,) * 2)
    return store


def left(store: FolderStore) -> list[str]:
    return sorted(info.key for info in store.list(""))


def test_old_stages_and_checkpoints_go(tmp_path: Path) -> None:
    store = a_store(
        tmp_path,
        stages__data__old__x=9,
        stages__data__old__manifest=9,
        stages__data__new__x=2,
        checkpoints__old__40__x=9,
    )
    assert prune(store, 7, set(), NOW) == 2
    assert left(store) == ["stages/data/new/x"]


def test_a_folder_is_as_old_as_its_newest_object(tmp_path: Path) -> None:
    store = a_store(tmp_path, stages__train__k__x=9, stages__train__k__y=2)
    assert prune(store, 7, set(), NOW) == 0


def test_folders_in_use_stay(tmp_path: Path) -> None:
    store = a_store(tmp_path, stages__data__used__x=9, checkpoints__used__40__x=9, stages__data__unused__x=9)
    assert prune(store, 7, {"used"}, NOW) == 1
    assert left(store) == ["checkpoints/used/40/x", "stages/data/used/x"]


def test_artifacts_and_reports_stay(tmp_path: Path) -> None:
    store = a_store(tmp_path, artifacts__ns__job__v__d__x=900, reports__ns__job__r=900, cache__teacher__x=900)
    assert prune(store, 0, set(), NOW) == 0


def test_the_manifest_goes_before_the_files_that_it_names(tmp_path: Path) -> None:
    deleted: list[list[str]] = []

    class Watched(FolderStore):
        def delete(self, keys: object) -> None:
            assert isinstance(keys, list)
            deleted.append(keys)
            super().delete(keys)

    a_store(tmp_path, stages__data__old__x=9)
    store = Watched(tmp_path)
    store.put_bytes("stages/data/old/manifest.json", b"{}")
    os.utime(tmp_path / "stages/data/old/manifest.json", (NOW - 9 * DAY_SECONDS,) * 2)
    prune(store, 7, set(), NOW)
    assert deleted == [["stages/data/old/manifest.json"], ["stages/data/old/x"]]
