"""What training asks of the machine: no compiler, little memory, and words for a full disk."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.train.training import Training, write_teacher_and_dataset

PROGRAM = """
import os, sys
os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
from dram_workers.train.engine import initialize_process_group
print(initialize_process_group())
import torch
print(torch.distributed.get_backend(), os.listdir(os.environ["TORCH_EXTENSIONS_DIR"]))
"""

MEMORY = """
import json, torch
from tests.bench.loss import _start_of_peak, _status
from dram_workers.train.losses import Objective, Projection, TeacherStates, distillation_loss
N, V, D, tile = 2048, 49_152, 32, 32 << 20
hidden, weight = torch.randn(N, D, requires_grad=True), torch.randn(V, D).requires_grad_()
teacher_hidden, teacher = torch.randn(N, D), torch.randn(V, D)
labels = torch.randint(0, V, (N,))
torch.randn(512, 512) @ torch.randn(512, 512)
before = _start_of_peak()
loss = distillation_loss(Projection(weight), hidden, TeacherStates(Projection(teacher), teacher_hidden), labels, Objective(2, 0.7, N, tile))
loss.total.backward()
print(json.dumps((_status("VmHWM") - before - hidden.nbytes - weight.nbytes) / tile))
"""


def test_no_compiler_is_needed(tmp_path: Path) -> None:
    """DeepSpeed would compile its collectives at the first process group; its private list of operators prevents it."""
    environment = {
        **os.environ,
        "PATH": str(tmp_path),  # neither g++ nor ninja
        "TORCH_EXTENSIONS_DIR": str(tmp_path),
    }
    ran = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-2:] == ["cpu", "gloo []"]


def test_the_loss_keeps_to_its_budget() -> None:
    """The dense form would need 3 GiB here; the tile is 32 MiB."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    ran = subprocess.run([sys.executable, "-c", MEMORY], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout.splitlines()[-1]) <= 1.5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KiB: enough for the stage, too small for a checkpoint."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root; run this test as root to see a full disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named(tmp_path: Path, small_disk: Path) -> None:
    paths = write_teacher_and_dataset(tmp_path / "inputs")
    more = {"scratch": str(small_disk), "checkpoint_every_steps": 1}
    attempt = Training(tmp_path / "run", paths, execution=more).run()
    assert attempt.code == 75
    assert attempt.message["reason"] == "DiskFull"
    assert attempt.message["remedy"]
