"""Long-running programs of a fixture, recorded on disk so that the next run ends what a killed run left behind."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil

from tests.cluster.folders import cache_folder

SAME_START_SECONDS = 2.0


class NotReady(RuntimeError):
    """A program ended or did not become ready; the message has the end of its log."""


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Different TCP ports of an address that nobody listens on right now."""
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind((address, 0))
        return [int(probe.getsockname()[1]) for probe in sockets]


def fresh_folder(kind: str) -> Path:
    """An empty state folder that belongs to this process, after cleaning up those whose process is gone."""
    runs = cache_folder("run")
    for folder in runs.iterdir():
        if not _owner_lives(folder.name):
            end_recorded(folder)
            shutil.rmtree(folder, ignore_errors=True)
    started = int(psutil.Process().create_time())
    number = sum(1 for _ in runs.glob(f"{kind}-*"))
    while True:
        folder = runs / f"{kind}-{number}-{os.getpid()}-{started}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
            continue
        return folder


def _owner_lives(name: str) -> bool:
    """The owner is in the folder's name, so that a folder is never seen without one."""
    _, _, pid, started = name.rsplit("-", 3)
    return _find(int(pid), float(started)) is not None


def _find(pid: int, started: float) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - started) < SAME_START_SECONDS else None
    except psutil.NoSuchProcess:
        return None


def end_recorded(folder: Path) -> None:
    """End the processes that a run recorded in this folder, the last started first."""
    for record in sorted(folder.glob("*.pid"), key=lambda record: record.stat().st_mtime, reverse=True):
        _end_record(record)


def _end_record(record: Path) -> None:
    """End a recorded process if the pid is still its own."""
    try:
        saved = json.loads(record.read_text())
    except ValueError:
        # The run was killed while it wrote the record.
        saved = {"pid": -1, "started": 0.0}
    if saved["pid"] > 0 and (process := _find(saved["pid"], saved["started"])):
        _end(process)
    record.unlink(missing_ok=True)


def _end(process: psutil.Process, patience_seconds: float = 10) -> None:
    try:
        process.terminate()
        process.wait(patience_seconds)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(patience_seconds)
    except psutil.NoSuchProcess:
        return


class Processes:
    """The programs of one fixture. Logs and records lie in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: list[str], env: Mapping[str, str] | None = None) -> int:
        """Start a program in a session of its own; returns its pid."""
        with (self.folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **(env or {})},
            )
        record = {"pid": child.pid, "started": psutil.Process(child.pid).create_time()}
        (self.folder / f"{name}.pid").write_text(json.dumps(record))
        self._children[name] = child
        return child.pid

    def wait_ready(self, name: str, ready: Callable[[], bool], patience_seconds: float = 90) -> None:
        """Poll until the program is ready; raises NotReady when it ended or took too long."""
        deadline = time.monotonic() + patience_seconds
        while not ready():
            if self._children[name].poll() is not None or time.monotonic() > deadline:
                raise NotReady(f"{name} is not ready; its log ends with:\n{self.log(name)[-3000:]}")
            time.sleep(0.05)

    def stop(self, name: str) -> None:
        """End a program and wait until it is gone, whether this process or an earlier one started it."""
        child = self._children.pop(name, None)
        record = self.folder / f"{name}.pid"
        if child is not None:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        elif record.exists():
            _end_record(record)
        record.unlink(missing_ok=True)

    def stop_all(self) -> None:
        """End every program, the last started first."""
        for name in reversed(list(self._children)):
            self.stop(name)

    def kill(self, name: str) -> None:
        """SIGKILL a program, as a crash does."""
        child = self._children.pop(name)
        child.kill()
        child.wait()
        (self.folder / f"{name}.pid").unlink(missing_ok=True)

    def log(self, name: str) -> str:
        """What the program wrote so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")
