"""A small training, run as the operator runs it: `python -m dram_workers train`."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from dram_workers.data.dataset import write_dataset
from dram_workers.data.samples import to_samples
from dram_workers.data.sources import read_source
from dram_workers.data.tokenizer import ChatTokenizer
from dram_workers.stages import JobRef, StageKind, TrainConfig, TrainExecution, TrainIdentity, stage_key
from dram_workers.store.manifest import digest_of
from tests.models import support_rows, write_jsonl, write_model
from tests.workers.contexts import Given, store_settings

IDENTITY: dict[str, Any] = {
    "layers": 2,
    "temperature": {"start": 2.0, "end": 1.0, "schedule": "Linear"},
    "alpha": {"start": 0.9, "end": 0.5, "schedule": "Cosine"},
    "precision": "FP32",
    "max_steps": 12,
    "batch_tokens": 256,
    "max_length": 128,
    "packing": True,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "weight_decay": 0.01,
    "seed": 5,
}


def an_identity(**more: Any) -> TrainIdentity:
    """The training's identity with other values."""
    return TrainIdentity.model_validate(IDENTITY | more)


def be_the_only_rank() -> None:
    """Give this process what torchrun gives to a rank: a gang of one, on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ |= {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def write_teacher_and_dataset(folder: Path) -> dict[str, Path]:
    """The inputs `teacher` and `dataset`."""
    teacher = write_model(folder / "teacher")
    source = write_jsonl(folder / "rows.jsonl", support_rows(40))
    tokenizer = ChatTokenizer.load(teacher)
    samples = [
        sample
        for record in read_source(source, source="s", weight=1.0, field="spec.dataset")
        for sample in to_samples(record, tokenizer, max_length=128, loss_on_all=False, field="spec.dataset")
    ]
    write_dataset(folder / "dataset", {"train": samples[:36], "validation": samples[36:]}, {}, {})
    return {"teacher": teacher, "dataset": folder / "dataset"}


@dataclass
class Training:
    """One training stage in a folder of its own."""

    folder: Path
    paths: dict[str, Path]
    identity: dict[str, Any] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    attempts: int = 0

    def config(self) -> TrainConfig:
        """The config of the next attempt."""
        self.attempts += 1
        identity = TrainIdentity.model_validate(IDENTITY | self.identity)
        inputs = Given(self.paths).inputs()
        execution = {"store": store_settings(self.folder), "scratch": str(self.folder / "scratch"), "threads": 2}
        return TrainConfig(
            stage="train",
            key=stage_key(StageKind.TRAIN, identity, inputs),
            attempt=self.attempts,
            job=JobRef(namespace="n", name="j"),
            inputs=inputs,
            identity=identity,
            execution=TrainExecution.model_validate(execution | self.execution),
        )

    @contextmanager
    def started(self) -> Iterator["Attempt"]:
        """An attempt that is under way; nothing of it is left behind."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.json"
        config.write_text(self.config().model_dump_json())
        pipe, termination = self.folder / f"progress-{self.attempts}", self.folder / f"termination-{self.attempts}"
        os.mkfifo(pipe)
        environment = {
            **os.environ,
            **self.environment,
            "DRAM_PROGRESS_FILE": str(pipe),
            "DRAM_TERMINATION_LOG": str(termination),
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", "dram_workers", "train", "--config", str(config)]
        # Opened for writing too, so that the pipe does not end between two reports.
        with (
            os.fdopen(os.open(pipe, os.O_RDWR), "rb", buffering=0) as progress,
            (self.folder / f"log-{self.attempts}").open("wb") as log,
            subprocess.Popen(command, env=environment, stderr=log, stdout=log) as process,
        ):
            attempt = Attempt(process, progress, termination, Path(log.name))
            try:
                yield attempt
            finally:
                attempt.end()

    def run(self) -> "Attempt":
        """One attempt from its beginning to its end."""
        with self.started() as attempt:
            attempt.wait()
        return attempt

    @property
    def student(self) -> Path:
        """The published student's folder."""
        (manifest,) = (self.folder / "store").glob("stages/train/*/manifest.json")
        path = json.loads(manifest.read_bytes())["result"]["outputs"]["student"]["path"]
        return manifest.parent / str(path)

    @property
    def digest(self) -> str:
        """Digest of the student's folder."""
        return digest_of(self.student)

    @property
    def log(self) -> list[dict[str, float]]:
        """The train log."""
        return [json.loads(line) for line in (self.student / "train-log.jsonl").read_text().splitlines()]

    def checkpoints(self) -> dict[int, list[str]]:
        """Files of every complete checkpoint by step."""
        found = (self.folder / "store").glob("checkpoints/*/*/manifest.json")
        return {int(path.parent.name): sorted(file.name for file in path.parent.iterdir()) for path in found}


@dataclass
class Attempt:
    """A worker process."""

    process: subprocess.Popen[bytes]
    progress: Any
    termination: Path
    log: Path

    def wait_for_step(self, step: int) -> int:
        """Read reports until one of this step or a later one; returns its step. Fails when the worker ends before."""
        ended = os.pidfd_open(self.process.pid)
        while True:
            line = b""
            while not line.endswith(b"\n"):
                ready, _, _ = select.select([self.progress, ended], [], [])
                assert self.progress in ready, f"ended before step {step}: {self.log.read_text()[-3000:]}"
                line += self.progress.read(1)
            reported: int = json.loads(line)["step"]
            if reported >= step:
                return reported

    def wait(self) -> None:
        """Read all reports until the worker ends: it would wait for a reader once the pipe is full."""
        ended = os.pidfd_open(self.process.pid)
        while self.progress in select.select([self.progress, ended], [], [])[0]:
            self.progress.read(65536)
        self.process.wait()
        os.close(ended)

    def ranks(self) -> list[psutil.Process]:
        """The rank processes."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return sorted(
            (child for child in children if "dram_workers.train.rank" in child.cmdline()), key=lambda child: child.pid
        )

    def kill(self) -> None:
        """SIGKILL for the supervisor alone; returns when the ranks are gone too."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not alive, "ranks outlive their supervisor"

    def terminate(self) -> int:
        """SIGTERM as the kubelet sends it; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()

    def end(self) -> None:
        """Leave nothing behind when a test fails in between."""
        if self.process.poll() is None:
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait()
            psutil.wait_procs(family, timeout=60)

    @property
    def code(self) -> int:
        """Exit code; the log's end is shown when a test expects another one."""
        assert self.process.returncode is not None
        if self.process.returncode not in (0, 64, 75, 143):
            sys.stderr.write(self.log.read_text()[-5000:])
        return self.process.returncode

    @property
    def message(self) -> dict[str, Any]:
        """The termination message."""
        message: dict[str, Any] = json.loads(self.termination.read_bytes())
        return message
