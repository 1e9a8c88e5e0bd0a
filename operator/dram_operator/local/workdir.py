"""The folder of a local run: `WORKDIR/NAME` with its status, report, logs and store, and one run at a time in it."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pydantic import ValidationError

from dram_operator.api.status import DistillationJobStatus, StageState
from dram_operator.core.jobs import attempt_name

ORPHANS_SECONDS = 60.0
"""How long the workers of a killed run get to save a checkpoint; they were told to stop when it died."""


class WorkdirBusy(Exception):
    """Another run is at work in the folder."""


class Workdir:
    """Where everything of one job lies."""

    def __init__(self, parent: Path, name: str) -> None:
        self.root = (parent / name).absolute()
        self.status_file = self.root / "status.json"
        self.report_file = self.root / "report.html"
        self.logs = self.root / "logs"
        self.attempts = self.root / ".attempts"
        """Configs, termination messages and scratch folders."""
        self.cache = parent.absolute() / ".cache"

    def read_status(self) -> DistillationJobStatus:
        """The status of the last run; a fresh one where there is none that this version can read."""
        try:
            return DistillationJobStatus.model_validate_json(self.status_file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return DistillationJobStatus()

    def write_status(self, status: DistillationJobStatus) -> None:
        """Replace status.json; a reader sees the old one or the new one."""
        body = json.dumps(status.model_dump(mode="json", exclude_none=True), indent=2, ensure_ascii=False) + "\n"
        self.replace(self.status_file, body.encode())

    def replace(self, file: Path, body: bytes) -> None:
        """Write a file at once."""
        incoming = file.with_name(f".{file.name}.incoming")
        incoming.write_bytes(body)
        incoming.replace(file)

    def log_file(self, attempt: str) -> Path:
        """What an attempt wrote to standard output and error."""
        return self.logs / f"{attempt}.log"

    def failed_logs(self, status: DistillationJobStatus) -> list[Path]:
        """Logs of the stages that failed."""
        failed = [stage for stage in status.stages if stage.state is StageState.FAILED]
        logs = [self.log_file(attempt_name(self.root.name, stage.id, stage.attempt)) for stage in failed]
        return [log for log in logs if log.exists()]

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Keep other runs out; yields a descriptor that the workers inherit, so that orphans keep the lock too.

        Raises WorkdirBusy when a living run has it. The workers of a killed run are waited for, then killed.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a+b") as file:
            self._acquire(file.fileno())
            file.truncate(0)
            self.note(file.fileno(), os.getpid())
            shutil.rmtree(self.attempts, ignore_errors=True)
            self.attempts.mkdir()
            self.logs.mkdir(exist_ok=True)
            try:
                yield file.fileno()
            finally:
                shutil.rmtree(self.attempts, ignore_errors=True)

    @staticmethod
    def note(lock: int, pid: int) -> None:
        """Write into the lock file who holds it: the run first, then its workers."""
        os.write(lock, f"{pid}\n".encode())

    def _acquire(self, lock: int) -> None:
        deadline = time.monotonic() + ORPHANS_SECONDS
        while not _try_lock(lock):
            runner, *workers = [int(line) for line in os.pread(lock, 4096, 0).split()] or [0]
            if runner and psutil.pid_exists(runner):
                raise WorkdirBusy(
                    f"{self.root}: process {runner} is at work here: wait for it, or take another --workdir"
                )
            if time.monotonic() > deadline:
                # Whoever holds the lock inherited it, so these numbers still belong to the dead run's workers.
                for worker in workers:
                    kill_tree(worker)
            time.sleep(0.2)


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all its descendants."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
