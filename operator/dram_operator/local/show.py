"""What people see of a local run: a live bar on a terminal, plain lines elsewhere."""

import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from dram_operator.api.status import DistillationJobStatus, StageState, StageStatus
from dram_operator.core.observed import ProgressView
from dram_operator.core.progress import eta_seconds
from dram_operator.show.jobs import progress_words, stage_line
from dram_operator.show.words import said

LINE_SECONDS = 10.0
"""A plain progress line at most this often."""


class PlainLines:
    """One line for every change of a stage, and a progress line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_line = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""

    def stages(self, before: DistillationJobStatus, status: DistillationJobStatus) -> None:
        """Print the stages that have changed."""
        for stage in changed(before, status):
            self._console.print(said(stage_line(stage)), soft_wrap=True)

    def progress(self, view: ProgressView) -> None:
        """Print how far the stage is."""
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            self._console.print(f"  {describe(view)}", highlight=False, markup=False, soft_wrap=True)


class LiveBar:
    """Finished stages as lines, the running one as a bar below them."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn(),
            console=console, transient=True,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self._bar.stop()

    def stages(self, before: DistillationJobStatus, status: DistillationJobStatus) -> None:
        """Start a bar, or turn it into a line."""
        for stage in changed(before, status):
            if stage.state is StageState.RUNNING:
                if stage.id not in self._tasks:
                    self._tasks[stage.id] = self._bar.add_task(stage.id, total=None, words="")
                continue
            task = self._tasks.pop(stage.id, None)
            if task is not None:
                self._bar.remove_task(task)
            self._bar.console.print(said(stage_line(stage)), soft_wrap=True)

    def progress(self, view: ProgressView) -> None:
        """Move the bar."""
        task = self._tasks.get(view.latest.stage)
        if task is not None:
            total = view.latest.total_steps or None
            self._bar.update(task, completed=view.latest.step, total=total, words=words(view))


def changed(before: DistillationJobStatus, status: DistillationJobStatus) -> list[StageStatus]:
    """Stages that are in another state than before."""
    known = {stage.id: (stage.state, stage.attempt) for stage in before.stages} if before.run == status.run else {}
    fresh = (StageState.PENDING, None)
    return [
        stage
        for stage in status.stages
        if known.get(stage.id, fresh) != (stage.state, stage.attempt)
        and (stage.state is not StageState.PENDING or stage.message)
    ]


def describe(view: ProgressView) -> str:
    """A progress report in one line."""
    report = view.latest
    of = f" of {report.total_steps}" if report.total_steps else ""
    return f"{report.stage}: step {report.step}{of}{', ' if words(view) else ''}{words(view)}"


def words(view: ProgressView) -> str:
    """Loss and remaining time, as far as they are known."""
    return progress_words(view.latest.metrics.get("loss"), eta_seconds(view))


def files_of(status: DistillationJobStatus, root: Path) -> list[str]:
    """Where each releasable variant lies: a folder of this machine below `root`, or its URI."""
    found = []
    for variant in status.variants:
        if variant.uri:
            folder = Path(variant.uri.removeprefix("file://"))
            files = sorted(folder.glob("*.gguf")) if folder.is_relative_to(root) else []
            found += [str(file) for file in files] or [variant.uri]
    return found
