"""Attempts as processes of this machine: what the kubelet is to a cluster, in small."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue

import psutil
from pydantic import ValidationError

from dram_operator.core.observed import Attempt, AttemptView, PodView, ProgressView
from dram_operator.local.workdir import Workdir, kill_tree
from dram_workers.message import TERMINATION_LOG
from dram_workers.progress import PROGRESS_FILE
from dram_workers.results import Progress

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def machine_bytes(group: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Memory that processes of this machine, or of this container, may use."""
    whole = int(psutil.virtual_memory().total)
    try:
        return min(whole, int(group.read_text()))
    except (OSError, ValueError):
        return whole


@dataclass
class _Running:
    """One process and where it leaves its words."""

    process: subprocess.Popen[bytes]
    folder: Path
    progress_bytes: int = 0
    ended_at: datetime | None = None

    @property
    def message_file(self) -> Path:
        return self.folder / "termination-log"

    @property
    def progress_file(self) -> Path:
        return self.folder / "progress.jsonl"


class Processes:
    """Starts, watches and stops workers. Not for several threads; only `changed` is touched by others."""

    def __init__(self, workdir: Workdir, lock: int, clock: Clock = utc_now) -> None:
        self._workdir = workdir
        self._lock = lock
        self._clock = clock
        self._views: dict[str, AttemptView] = {}
        self._running: dict[str, _Running] = {}
        self._progress: ProgressView | None = None
        self.changed: SimpleQueue[None] = SimpleQueue()
        """Gets an item when a process ends, or when anybody wants the run to look."""

    def start(self, attempt: Attempt) -> None:
        """Start the worker of an attempt, once."""
        if attempt.name in self._running:
            return
        folder = self._workdir.attempts / attempt.name
        folder.mkdir(parents=True)
        execution = attempt.config.execution.model_copy(update={"scratch": str(folder / "scratch")})
        config_file = folder / "config.json"
        config_file.write_text(attempt.config.model_copy(update={"execution": execution}).model_dump_json())
        process = self._spawn(attempt, folder, config_file)
        self._workdir.note(self._lock, process.pid)
        self._running[attempt.name] = _Running(process, folder)
        pod = PodView(name=attempt.name, phase="Running", scheduled=True, started=True)
        self._views[attempt.name] = AttemptView(
            name=attempt.name,
            stage=attempt.stage,
            attempt=attempt.attempt,
            run=attempt.run,
            created_at=self._clock(),
            pods=(pod,),
        )
        threading.Thread(target=self._wait, args=(process,), name=attempt.name, daemon=True).start()

    def stop(self, name: str) -> None:
        """Tell a worker to save and stop; it vanishes from the views when it did, unless it was done anyway."""
        self._views[name] = replace(self._views[name], deleting=True)
        self._running[name].process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill everything at once."""
        for running in self._running.values():
            if running.ended_at is None:
                kill_tree(running.process.pid)
                running.process.wait()

    def forget(self, name: str) -> None:
        """Drop a finished attempt, its log excepted."""
        self._views.pop(name)
        shutil.rmtree(self._running.pop(name).folder, ignore_errors=True)

    def views(self) -> tuple[AttemptView, ...]:
        """What is to be seen of every attempt now."""
        for name, running in list(self._running.items()):
            code = running.process.poll()
            if code is not None and running.ended_at is None:
                running.ended_at = self._clock()
                self._views[name] = self._ended(self._views[name], running, code)
                if self._views[name].deleting and not self._views[name].succeeded:
                    self.forget(name)
        return tuple(self._views.values())

    def progress(self) -> ProgressView | None:
        """The latest report of any worker."""
        for running in self._running.values():
            for report in _new_reports(running):
                self._progress = ProgressView.following(self._progress, report, self._clock())
        return self._progress

    def _spawn(self, attempt: Attempt, folder: Path, config_file: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dram_operator.local.child", str(os.getpid())]
        command += [attempt.config.kind.value, "--config", str(config_file)]
        environment = os.environ | {
            TERMINATION_LOG: str(folder / "termination-log"),
            PROGRESS_FILE: str(folder / "progress.jsonl"),
            "PYTHONUNBUFFERED": "1",
        }
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        with self._workdir.log_file(attempt.name).open("wb") as log:
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C reaches the run alone, which then tells the worker.
                start_new_session=True,
                pass_fds=(self._lock,),
            )

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self.changed.put(None)

    @staticmethod
    def _ended(view: AttemptView, running: _Running, code: int) -> AttemptView:
        """A process's end in the words of a pod: killed by signal 9 is exit code 137."""
        exit_code = code if code >= 0 else 128 - code
        message = running.message_file.read_text() if running.message_file.exists() else None
        done = exit_code == 0
        pod = replace(
            view.pods[0],
            phase="Succeeded" if done else "Failed",
            exit_code=exit_code,
            message=message,
            finished_at=running.ended_at,
        )
        return replace(view, succeeded=done, failed=not done, finished_at=running.ended_at, pods=(pod,))


def _new_reports(running: _Running) -> list[Progress]:
    """Whole lines that were appended since the last look."""
    try:
        with running.progress_file.open("rb") as file:
            file.seek(running.progress_bytes)
            body = file.read()
    except FileNotFoundError:
        return []
    whole = body[: body.rfind(b"\n") + 1]
    running.progress_bytes += len(whole)
    reports = []
    for line in whole.splitlines():
        try:
            reports.append(Progress.model_validate_json(line))
        except ValidationError:
            continue
    return reports
