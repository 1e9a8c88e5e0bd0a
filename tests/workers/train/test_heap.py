"""What was freed goes back to the system, and does so before the loss."""

from pathlib import Path

import pytest
import torch

from dram_workers.train import distiller
from dram_workers.train.attention import SEGMENTS
from dram_workers.train.batches import lay_out
from dram_workers.train.distiller import Distiller, projection_of, target_hidden
from dram_workers.train.heap import give_back
from dram_workers.train.losses import Objective, TeacherStates
from dram_workers.train.pretrained import load_model
from tests.models import ModelShape, write_model
from tests.workers.train.test_batches import a_dataset

MIB = 1 << 20


def resident() -> int:
    """Bytes that this process has of the machine's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_memory_freed_between_pieces_in_use_goes_back() -> None:
    pieces = [torch.ones(8192) for _ in range(2000)]
    kept = pieces[::2]
    del pieces
    before = resident()
    give_back()
    assert before - resident() > 20 * MIB, "half of 62 MiB was freed, in pieces too small for mappings of their own"
    assert len(kept) == 1000


def test_it_goes_back_between_the_student_and_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / "model", ModelShape(vocabulary=1024))
    model = load_model(folder, torch.float32, "f", attention=SEGMENTS)
    batch = lay_out(a_dataset(tmp_path / "data", [5, 9]), (0, 1), packed=True)
    target = TeacherStates(projection_of(model), target_hidden(model, batch).detach())
    training, order = Distiller(model), list[str]()
    model.base_model.register_forward_hook(lambda *_: order.append("student"))
    training.head.register_forward_pre_hook(lambda *_: order.append("loss"))
    monkeypatch.setattr(distiller, "give_back", lambda: order.append("given back"))
    training(batch, target, Objective(1.0, 0.5, len(batch.labels_N)))
    assert order == ["student", "given back", "loss"]
