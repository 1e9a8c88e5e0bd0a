"""Checkpoints: complete or not there."""

import logging
from pathlib import Path

import pytest
import torch

from dram_workers.store.folder import FolderStore
from dram_workers.train.checkpoint import Checkpoints

KEY = "c" * 64


def tensors(step: int, rank: int) -> dict[str, torch.Tensor]:
    return {f"w{rank}": torch.full((3,), float(step)), f"w{rank}/exp_avg": torch.arange(2.0) + rank}


class Gang:
    """Two ranks that write checkpoints one after the other."""

    def __init__(self, folder: Path, attempt: int = 1, kept: int = 2) -> None:
        self.folder = folder
        self.store = FolderStore(folder / "store")
        self.checkpoints = Checkpoints(self.store, KEY, attempt, kept)

    def save(self, step: int, *, complete: bool = True, best: int | None = None) -> None:
        scratch = self.folder / "scratch"
        files = [self.checkpoints.save_file(step, rank, tensors(step, rank), scratch) for rank in (0, 1)]
        if complete:
            self.checkpoints.complete(step, files, [f'{{"step":{step}}}'], best)

    def steps(self) -> set[str]:
        """Steps of which anything is there."""
        keys = [found.key.removeprefix(f"checkpoints/{KEY}/") for found in self.store.list("checkpoints/")]
        return {key.split("/")[0] for key in keys}


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    gang = Gang(tmp_path)
    gang.save(4)
    found = gang.checkpoints.latest(tmp_path / "fetched")
    assert found is not None
    assert found.manifest.step == 4
    assert found.manifest.log == ('{"step":4}',)
    for rank in (0, 1):
        for name, want in tensors(4, rank).items():
            assert torch.equal(found.read(name), want)
    with pytest.raises(KeyError):
        found.read("other")


def test_without_a_manifest_there_is_no_checkpoint(tmp_path: Path) -> None:
    gang = Gang(tmp_path)
    gang.save(4, complete=False)
    assert gang.checkpoints.latest(tmp_path / "fetched") is None


def test_the_newest_complete_one_counts(tmp_path: Path) -> None:
    gang = Gang(tmp_path)
    for step in (9, 10):
        gang.save(step)
    gang.save(11, complete=False)
    found = gang.checkpoints.latest(tmp_path / "fetched")
    assert found is not None
    assert found.manifest.step == 10


def test_old_ones_are_pruned_and_unfinished_ones_with_them(tmp_path: Path) -> None:
    gang = Gang(tmp_path, kept=2)
    gang.save(2, complete=False)
    for step in (3, 6, 9):
        gang.save(step)
    assert gang.steps() == {"6", "9"}
    gang.checkpoints.prune(1)
    assert gang.steps() == {"9"}


@pytest.mark.parametrize("damage", ["changed", "shortened", "lost", "manifest"])
def test_a_damaged_checkpoint_is_removed_unread(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    gang = Gang(tmp_path)
    gang.save(3)
    gang.save(6)
    folder = tmp_path / "store" / "checkpoints" / KEY / "6"
    file = folder / "attempt-1-rank-1.safetensors"
    body = file.read_bytes()
    match damage:
        case "changed":
            file.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
        case "shortened":
            file.write_bytes(body[:-1])
        case "lost":
            file.unlink()
        case _:
            (folder / "manifest.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        found = gang.checkpoints.latest(tmp_path / "fetched")
    assert found is not None
    assert found.manifest.step == 3
    assert "step 6 is damaged" in caplog.text
    assert gang.steps() == {"3"}


def test_a_zombie_cannot_replace_a_checkpoint(tmp_path: Path) -> None:
    Gang(tmp_path, attempt=2).save(5)
    zombie = Gang(tmp_path, attempt=1)
    zombie.save(5)
    found = zombie.checkpoints.latest(tmp_path / "fetched")
    assert found is not None
    assert found.manifest.attempt == 2
    assert torch.equal(found.read("w1"), tensors(5, 1)["w1"])


def test_the_best_one_is_kept_until_there_is_a_better(tmp_path: Path) -> None:
    gang = Gang(tmp_path, kept=1)
    gang.save(2, best=2)
    for step in (4, 6, 8):
        gang.save(step, best=2)
    assert gang.steps() == {"2", "8"}
    gang.save(10, best=10)
    assert gang.steps() == {"10"}


def test_a_training_does_not_go_on_from_a_checkpoint_whose_best_one_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gang = Gang(tmp_path, kept=3)
    gang.save(2)
    gang.save(4, best=4)
    gang.save(6, best=4)
    (tmp_path / "store" / "checkpoints" / KEY / "4" / "manifest.json").unlink()
    with caplog.at_level(logging.WARNING):
        found = gang.checkpoints.latest(tmp_path / "fetched")
    assert found is not None
    assert found.manifest.step == 2
    assert "step 6 has lost the best one" in caplog.text


def test_a_damaged_best_one_is_removed_when_it_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gang = Gang(tmp_path)
    gang.save(4, best=4)
    (tmp_path / "store" / "checkpoints" / KEY / "4" / "attempt-1-rank-0.safetensors").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert gang.checkpoints.at(4, tmp_path / "fetched") is None
    assert gang.steps() == set()
