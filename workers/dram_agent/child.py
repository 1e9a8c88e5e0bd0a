"""One model's process: started, asked whether it is up, measured, ended."""

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import urllib3
from urllib3.exceptions import HTTPError

from dram_agent.errors import NotServing

log = logging.getLogger(__name__)

OK = 200
CLOSE = {"Connection": "close"}
HEALTH_SECONDS = 5.0
END_SECONDS = 5.0
"""Between SIGTERM and SIGKILL."""
SAID_BYTES = 65_536


@dataclass(frozen=True)
class RuntimeSettings:
    """How a model is run."""

    context_tokens: int = 2048
    """Tokens of all requests that are answered at once."""
    parallel: int = 1
    """Requests answered at once; more go to the cloud."""
    threads: int = max(1, (os.cpu_count() or 2) // 2)
    """Half of the cores: the device has other work to do."""
    start_seconds: float = 120.0
    """The longest that loading may take."""


class Child:
    """A process of its own session; it ends with this one (see runtime.py)."""

    def __init__(
        self, model: Path, name: str, settings: RuntimeSettings, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        self._started = monotonic()
        self._limit = settings.start_seconds
        self.url: str | None = None
        self._said = b""
        command = [sys.executable, "-m", "dram_agent.runtime", "--model", str(model), "--name", name]
        command += ["--context", str(settings.context_tokens), "--parallel", str(settings.parallel)]
        command += ["--threads", str(settings.threads), "--parent", str(os.getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def is_late(self) -> bool:
        """Whether it should have come up by now."""
        return self.url is None and self._monotonic() - self._started > self._limit

    def is_ready(self) -> bool:
        """Whether the model answers now."""
        self._listen(0)
        if self.url is None or not self.is_alive():
            return False
        try:
            # A connection of its own: the server ends idle ones, and that would look like a model that is unwell.
            answer = urllib3.request(
                "GET", f"{self.url}/health", headers=CLOSE, timeout=urllib3.Timeout(HEALTH_SECONDS), retries=False
            )
        except HTTPError:
            return False
        return answer.status == OK

    def wait_ready(self) -> str:
        """Wait until it answers; returns its URL. NotServing when it ends or takes too long."""
        while not self.is_ready():
            if not self.is_alive():
                raise NotServing(f"the model's process ended with {self._process.returncode}")
            if self._monotonic() - self._started > self._limit:
                raise NotServing(f"the model was not loaded within {self._limit:.0f} s")
            self._listen(0.2)
        assert self.url is not None
        return self.url

    def memory_bytes(self) -> int | None:
        """Resident memory; None when the process is gone."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return None
        return pages * os.sysconf("SC_PAGE_SIZE") if pages else None

    def end(self) -> None:
        """SIGTERM, then SIGKILL; the process is gone afterwards."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._process.send_signal(number)
                try:
                    self._process.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listen(self, seconds: float) -> None:
        """Take up what the process says about where it answers."""
        stdout = self._process.stdout
        assert stdout is not None
        if self.url is not None or stdout.closed:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return
        self._said += stdout.read() or b""
        line, separator, _ = self._said.partition(b"\n")
        if separator:
            self.url = str(json.loads(line)["url"])
        elif len(self._said) > SAID_BYTES:
            raise NotServing("the model's process talks, but not about where it answers")
