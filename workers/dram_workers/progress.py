"""Telling how far a stage is. Progress informs people and drives nothing, so no failure here reaches the stage."""

import json
import logging
import os
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from dram_workers.context import Reporter
from dram_workers.results import Progress, ProgressSettings
from dram_workers.stages import StageConfig

PROGRESS_FILE = "DRAM_PROGRESS_FILE"
"""Environment variable that names a file to which `Progress` objects are appended, one JSON line each."""

BODY_BYTES = 64 * 1024
POST_SECONDS = 10.0
LOG_SECONDS = 10.0

logger = logging.getLogger(__name__)


@contextmanager
def open_reporter(config: StageConfig) -> Iterator[Reporter]:
    """The reporter that this stage's surroundings ask for; the last report is delivered before this ends."""
    settings = config.execution.progress
    if settings is not None:
        poster = PostingReporter(config, settings)
        try:
            yield poster
        finally:
            poster.close()
    elif path := os.environ.get(PROGRESS_FILE):
        yield FileReporter(config, Path(path))
    else:
        yield LoggingReporter(config)


class FileReporter:
    """Appends every report to a file."""

    def __init__(self, config: StageConfig, path: Path) -> None:
        self._config = config
        self._path = path

    def report(self, step: int, total_steps: int, metrics: dict[str, float] | None = None) -> None:
        """Append one line."""
        line = _body(self._config, step, total_steps, metrics) + b"\n"
        try:
            with self._path.open("ab", buffering=0) as file:
                file.write(line)
        except OSError as error:
            logger.warning("progress file %s: %s", self._path, error)


class LoggingReporter:
    """Logs a report now and then."""

    def __init__(self, config: StageConfig) -> None:
        self._config = config
        self._next = 0.0

    def report(self, step: int, total_steps: int, metrics: dict[str, float] | None = None) -> None:
        """Log one line, unless the last one is fresh."""
        if time.monotonic() >= self._next or step == total_steps:
            self._next = time.monotonic() + LOG_SECONDS
            logger.info("%s step %d of %d %s", self._config.stage, step, total_steps, metrics or "")


class PostingReporter:
    """Posts the latest report to the operator, at most one in an interval, from a thread of its own."""

    def __init__(self, config: StageConfig, settings: ProgressSettings) -> None:
        self._config = config
        self._settings = settings
        self._latest: bytes | None = None
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._work, name="progress", daemon=True)
        self._thread.start()

    def report(self, step: int, total_steps: int, metrics: dict[str, float] | None = None) -> None:
        """Leave a report for the thread; one that it has not posted yet is replaced."""
        with self._changed:
            self._latest = _body(self._config, step, total_steps, metrics)
            self._changed.notify()

    def close(self) -> None:
        """Post what is left and stop."""
        self._closed.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(POST_SECONDS)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._latest is not None or self._closed.is_set())
                body, self._latest = self._latest, None
            if body is not None:
                self._post(body)
            elif self._closed.is_set():
                return
            self._closed.wait(self._settings.interval_seconds)

    def _post(self, body: bytes) -> None:
        try:
            # the kubelet renews the token in its file
            token = Path(self._settings.token_file).read_text(encoding="utf-8").strip()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            request = Request(self._settings.url, body, headers, method="POST")  # noqa: S310 -- the operator's own URL
            trust = ssl.create_default_context(cafile=self._settings.ca_file)
            with urlopen(request, timeout=POST_SECONDS, context=trust):  # noqa: S310
                self._failing = False
        except (OSError, HTTPException, ValueError) as error:
            if not self._failing:
                logger.warning("progress is not delivered: %s", error)
            self._failing = True


def _body(config: StageConfig, step: int, total_steps: int, metrics: dict[str, float] | None) -> bytes:
    """The report as JSON; figures that are no numbers are left out, and all of them where they are too many."""
    finite = {name: float(value) for name, value in (metrics or {}).items() if abs(value) < float("inf")}
    report = Progress(stage=config.stage, attempt=config.attempt, step=step, total_steps=total_steps, metrics=finite)
    body = json.dumps(report.model_dump(mode="json")).encode()
    if len(body) <= BODY_BYTES:
        return body
    return json.dumps(report.model_copy(update={"metrics": {}}).model_dump(mode="json")).encode()
