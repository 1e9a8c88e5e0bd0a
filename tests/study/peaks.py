"""Peak memory of real trainings, read from the kernel while they run."""

import math
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from safetensors import safe_open

from dram_workers.data.dataset import write_dataset
from dram_workers.data.samples import Sample
from dram_workers.data.sources import Record
from tests.workers.train.training import Training

LOOK_SECONDS = 0.1


@dataclass
class Watch:
    """Follows the ranks of a training; `peaks` are their highest resident sizes in bytes, by process."""

    process: subprocess.Popen[bytes]
    peaks: dict[int, int] = field(default_factory=dict)

    def follow(self, ended: threading.Event) -> None:
        """Look until the training is over."""
        while not ended.wait(LOOK_SECONDS):
            for pid in self._ranks():
                self.peaks[pid] = max(self.peaks.get(pid, 0), _peak_bytes(pid))

    def _ranks(self) -> Iterator[int]:
        try:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                if "dram_workers.train.rank" in child.cmdline():
                    yield child.pid
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            return


def peak_rank_bytes(training: Training) -> int:
    """Run a training to its end; the peak of the rank that needed most."""
    with training.started() as attempt:
        watch, ended = Watch(attempt.process), threading.Event()
        follower = threading.Thread(target=watch.follow, args=(ended,))
        follower.start()
        try:
            attempt.process.wait()
        finally:
            ended.set()
            follower.join()
    assert attempt.code == 0, attempt.message
    return max(watch.peaks.values())


def parameters_of(folder: Path) -> int:
    """Number of elements of a model's weights, from the headers."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total


def write_samples(folder: Path, lengths: list[int], vocabulary: int) -> Path:
    """A dataset of samples of these lengths in which every token but the first is a target."""
    samples = [_sample(number, length, vocabulary) for number, length in enumerate(lengths)]
    write_dataset(folder, {"train": samples, "validation": []}, {}, {})
    return folder


def _sample(number: int, length: int, vocabulary: int) -> Sample:
    tokens = tuple((number * 7919 + at * 104_729) % vocabulary for at in range(length))
    mask = (0, *(1 for _ in tokens[1:]))
    return Sample(str(number), Record("study", f"study:{number}", 1.0), tokens, mask, group=str(number).encode())


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
