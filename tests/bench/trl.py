"""Distillation of SmolLM2-135M into 15 of its layers, beside TRL's trainers on the same tokens.

Ours is a training as the operator runs it, timed from outside by its reports. TRL lives in an environment of its own,
`build/bench/trl-venv`, because its pins are not ours. Extra memory is the peak beyond the process without models, the
weights of both models and the optimizer's two moments: gradients, activations and whatever the loss holds.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.bench.results import Row
from tests.workers.train.training import Training

BUILD = Path(__file__).parents[2] / "build" / "bench"
REQUIREMENTS = Path(__file__).with_name("trl-requirements.txt")
LAYERS, PROMPT, LENGTH, BATCH = 15, 64, 256, 4
WARMUP, STEPS, THREADS = 2, 6, 2
RECIPE: dict[str, Any] = {
    "layers": None,
    "temperature": {"start": 1.0, "end": 1.0},
    "alpha": {"start": 1.0, "end": 1.0},
    "precision": "BF16",
    # One more than is timed: at its end memory is read while the training still runs.
    "max_steps": WARMUP + STEPS + 1,
    "batch_tokens": BATCH * LENGTH,
    "max_length": LENGTH,
    "learning_rate": 1e-4,
    "warmup_steps": 0,
    "weight_decay": 0.0,
}
SAME = f"sequence {LENGTH} ({LENGTH - PROMPT} targets), batch {BATCH}, BF16 autocast, {THREADS} threads"


@dataclass(frozen=True)
class Measured:
    """What one way to train took."""

    step_seconds: float
    """Median of the steps after the warm-up."""
    peak_bytes: int
    base_bytes: int
    """Of the process with everything imported and no model."""

    def extra_bytes(self, *, student: int, teacher: int) -> int:
        """Beyond weights (the student in FP32, the teacher in BF16) and AdamW's moments; takes numbers of parameters."""
        return self.peak_bytes - self.base_bytes - 3 * 4 * student - 2 * teacher


def rows() -> list[Row]:
    """Ours and TRL's two trainers, one after the other."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=BUILD) as folder:
        job = make_job(Path(folder))
        teacher, student = (parameters(Path(job[name])) for name in ("teacher", "student"))
        trl, gkd = (run_trl(trainer, job, Path(folder)) for trainer in ("distillation", "gkd"))
        online, cached, text = (run_ours(kind, job, Path(folder)) for kind in ("online", "cached", "text"))
    ours = {
        "online": (online, online.extra_bytes(student=student, teacher=teacher)),
        "cached": (cached, cached.extra_bytes(student=student, teacher=0)),
    }
    peers = {
        "": ("TRL DistillationTrainer on given completions", trl),
        ".gkd": ("TRL GKDTrainer, lmbda 0", gkd),
    }
    found = []
    for mode, (measured, extra) in ours.items():
        for name, (peer, theirs) in peers.items():
            found += beside(
                f"{mode}{name}", measured, extra, peer, theirs, theirs.extra_bytes(student=student, teacher=teacher)
            )
        note = f"lower is better; the same step with the teacher {mode}; {SAME}"
        found.append(
            Row(
                f"kd.step_seconds.{mode}",
                measured.step_seconds,
                "s",
                "cross-entropy alone here",
                text.step_seconds,
                note,
            )
        )
    return found


def beside(name: str, ours: Measured, extra: int, peer: str, theirs: Measured, their_extra: int) -> list[Row]:
    """Speed and memory of one of our ways beside a peer."""
    speeds = 1 / ours.step_seconds, 1 / theirs.step_seconds
    tokens = BATCH * LENGTH
    memory = f"lower is better; peak - weights - optimizer; {SAME}"
    return [
        Row(f"kd.steps_per_second.{name}", speeds[0], "1/s", peer, speeds[1], f"higher is better; {SAME}"),
        Row(
            f"kd.tokens_per_second.{name}",
            speeds[0] * tokens,
            "1/s",
            peer,
            speeds[1] * tokens,
            f"higher is better; {SAME}",
        ),
        Row(f"kd.extra_memory_bytes.{name}", extra, "B", peer, their_extra, memory),
    ]


def make_job(folder: Path) -> dict[str, Any]:
    """Models, and tokens that every way to train sees in the same batches; also the dataset that ours reads."""
    models = BUILD / "models"
    if not (models / "student").exists():
        subprocess.run([sys.executable, "-m", "tests.bench.trl", "models", str(models)], check=True)
    random = np.random.default_rng(0)
    count = BATCH * (WARMUP + STEPS + 1)
    tokens = random.integers(1000, 49_000, (count, LENGTH)).tolist()
    job = {
        "teacher": str(models / "teacher"),
        "student": str(models / "student"),
        "rows": [{"prompt_ids": row[:PROMPT], "completion_ids": row[PROMPT:]} for row in tokens],
        "threads": THREADS,
        "batch": BATCH,
        "warmup": WARMUP,
        "steps": STEPS,
    }
    (folder / "job.json").write_text(json.dumps(job))
    write_rows(folder / "dataset", tokens)
    return job


def write_rows(folder: Path, tokens: list[list[int]]) -> None:
    """The tokens as the data stage would leave them."""
    from dram_workers.data.dataset import write_dataset
    from dram_workers.data.samples import Sample
    from dram_workers.data.sources import Record

    record = Record(source="bench", place="", weight=1.0, text="tokens")
    mask = (0,) * PROMPT + (1,) * (LENGTH - PROMPT)
    samples = [Sample(f"{number:016x}", record, tuple(row), mask, bytes([number])) for number, row in enumerate(tokens)]
    write_dataset(folder, {"train": samples, "validation": []}, {}, {})


def write_models(folder: Path) -> None:
    """The demo's teacher, and the student that is cut from it."""
    import torch

    from dram_operator.local.teacher import write_teacher
    from dram_workers.train.pretrained import load_model
    from dram_workers.train.student import cut_from, save_student

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "teacher").exists():
        write_teacher(folder / "teacher")
    student = cut_from(load_model(folder / "teacher", torch.float32, "teacher"), LAYERS, "sdpa")
    save_student(student, dict(student.named_parameters()), folder / "teacher", folder / "student")


def parameters(folder: Path) -> int:
    """Elements of a model's weights."""
    from safetensors import safe_open

    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as tensors:
            total += sum(int(np.prod(tensors.get_slice(name).get_shape())) for name in tensors.keys())  # noqa: SIM118
    return total


def run_ours(kind: str, job: dict[str, Any], folder: Path) -> Measured:
    """A training stage: the teacher `online` or `cached`, or `text` without one."""
    paths = {"student": Path(job["student"]), "dataset": folder / "dataset"}
    recipe = RECIPE
    if kind == "text":
        recipe = RECIPE | {"mode": "Sequence", "alpha": {"start": 0.0, "end": 0.0}}
    else:
        paths["teacher"] = Path(job["teacher"])
    if kind == "cached":
        command = ["cache", str(folder / kind), job["teacher"], str(folder / "dataset")]
        paths["logits"] = Path(printed(command))
    training = Training(folder / kind, paths, recipe, {"threads": THREADS, "checkpoint_every_steps": 1000})
    return Measured(*timed(training), base_bytes=int(printed(["imports"])))


def printed(command: list[str]) -> str:
    """What a command of this program says last, in a process of its own."""
    program = [sys.executable, "-m", "tests.bench.trl", *command]
    return subprocess.run(program, check=True, capture_output=True, text=True).stdout.splitlines()[-1]


def write_cache(folder: Path, teacher: Path, dataset: Path) -> None:
    """Run the teach stage into the store that the training reads; prints where its result is."""
    from tests.workers.teach.teaching import models, run

    outcome = run(folder, models(teacher, dataset), topK=64, precision="BF16")
    print(outcome.folders["logits"])  # noqa: T201


def timed(training: Training) -> tuple[float, int]:
    """Median seconds of a step and the peak of memory, after the warm-up."""
    marks = []
    with training.started() as attempt:
        attempt.wait_for_step(WARMUP)
        process = Path(f"/proc/{attempt.ranks()[0].pid}")
        (process / "clear_refs").write_text("5")
        marks.append(time.perf_counter())
        for step in range(WARMUP + 1, WARMUP + STEPS + 1):
            attempt.wait_for_step(step)
            marks.append(time.perf_counter())
        peak = status(process, "VmHWM")
        attempt.process.wait()
        assert attempt.code == 0
    return statistics.median(np.diff(marks).tolist()), peak


def imports() -> None:
    """Import what a rank imports, and print the memory that takes."""
    for name in ("deepspeed", "dram_workers.train.stage"):
        import_module(name)
    print(status(Path("/proc/self"), "VmRSS"))  # noqa: T201


def run_trl(trainer: str, job: dict[str, Any], folder: Path) -> Measured:
    """One of TRL's trainers in its own environment."""
    python = peer_environment()
    program = Path(__file__).with_name("_trl_program.py")
    environment = os.environ | {"OMP_NUM_THREADS": str(job["threads"]), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    # Without -P this folder would be on the path, and its modules in the way of those of the same name.
    command = [str(python), "-P", str(program), trainer, str(folder / "job.json")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"TRL's {trainer} failed: {ran.stderr[-3000:]}")
    found = json.loads(ran.stdout.splitlines()[-1])
    return Measured(statistics.median(found["seconds"]), found["peak"], found["base"])


def peer_environment() -> Path:
    """TRL's Python; made where it is not there, or for other requirements."""
    folder = BUILD / "trl-venv"
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    if not stamp.exists() or stamp.read_bytes() != REQUIREMENTS.read_bytes():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(python), "-r", str(REQUIREMENTS)], check=True)
        stamp.write_bytes(REQUIREMENTS.read_bytes())
    return python


def status(process: Path, name: str) -> int:
    """A line of a process's status, in bytes."""
    lines = (process / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    COMMANDS: dict[str, Callable[..., None]] = {"models": write_models, "imports": imports, "cache": write_cache}
    COMMANDS[sys.argv[1]](*map(Path, sys.argv[2:]))
