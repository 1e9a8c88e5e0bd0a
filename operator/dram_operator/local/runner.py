"""The local run: the operator's own decisions, carried out by processes instead of Jobs.

Look at the processes, let `decide` say what comes next, do it, write status.json when it differs, wait for the next
event. Ctrl-C is `spec.suspend`: workers save and stop, and the next run on the folder goes on from there.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty
from types import FrameType
from typing import Protocol

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.pods import Resources
from dram_operator.api.spec import Storage
from dram_operator.api.status import Condition, DistillationJobStatus, Reason
from dram_operator.core.configs import storage_of, store_settings
from dram_operator.core.distillation import decide
from dram_operator.core.installation import Installation
from dram_operator.core.observed import Attempt, Decision, Observed, ProgressView
from dram_operator.local.processes import Processes, machine_bytes, utc_now
from dram_operator.local.workdir import Workdir
from dram_operator.show.jobs import summary_of
from dram_workers.store.open import open_store

LOOK_SECONDS = 0.5
"""How often progress files are read while nothing else happens."""

OK, BAD_MANIFEST, GATE_FAILED, FAILED, INTERRUPTED = 0, 2, 3, 4, 130
"""Exit codes of `dram run`."""


class Display(Protocol):
    """Shows people what happens."""

    def stages(self, before: DistillationJobStatus, status: DistillationJobStatus) -> None:
        """The stages have changed."""

    def progress(self, view: ProgressView) -> None:
        """A worker has told how far it is."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: DistillationJobStatus
    exit_code: int
    reason: str
    message: str


def run_job(job: DistillationJob, parent: Path, mounts: dict[str, str], display: Display) -> Outcome:
    """Run a job to its end in `parent`/NAME; raises WorkdirBusy when another run is at work there."""
    workdir = Workdir(parent, job.metadata.name)
    with workdir.lock() as lock:
        installation = _installation(workdir, mounts)
        run = _Run(job, installation, workdir, Processes(workdir, lock), display)
        with run.signals():
            status = run.to_the_end()
        run.fetch_report()
    return _outcome(status)


class _Run:
    """One run, from a status to its end or its interruption."""

    def __init__(
        self,
        job: DistillationJob,
        installation: Installation,
        workdir: Workdir,
        processes: Processes,
        display: Display,
    ) -> None:
        self._installation = installation
        self._workdir = workdir
        self._processes = processes
        self._display = display
        self._interrupts = 0
        self._shown: ProgressView | None = None
        self._job = job.model_copy(update={"status": _beginning(workdir.read_status())})
        self._ca_file = _write_ca_file(storage_of(job, installation), workdir)

    def to_the_end(self) -> DistillationJobStatus:
        """Loop until nothing is left to do and no process is left."""
        try:
            while True:
                views = self._processes.views()
                progress = self._processes.progress()
                if self._interrupts:
                    self._job = self._suspended()
                decision = decide(Observed(self._job, views, progress), self._installation, utc_now())
                self._carry_out(decision)
                if progress and progress is not self._shown:
                    self._shown = progress
                    self._display.progress(progress)
                over = bool(decision.status.finished_at) or self._interrupts > 0
                if over and not any(not view.finished for view in self._processes.views()) and not decision.start:
                    return self._job.status
                self._wait(decision)
        finally:
            self._processes.kill()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM: the first one suspends, the second one kills."""
        before = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._interrupts += 1
        if self._interrupts > 1:
            self._processes.kill()
        self._processes.changed.put(None)

    def _suspended(self) -> DistillationJob:
        return self._job.model_copy(update={"spec": self._job.spec.model_copy(update={"suspend": True})})

    def _carry_out(self, decision: Decision) -> None:
        for name in decision.delete:
            self._processes.stop(name)
        for attempt in decision.start:
            self._processes.start(self._with_ca_file(attempt))
        before = self._job.status
        if decision.status != before:
            self._job = self._job.model_copy(update={"status": decision.status})
            self._workdir.write_status(decision.status)
            self._display.stages(before, decision.status)
        for name in decision.expire:
            self._processes.forget(name)

    def _with_ca_file(self, attempt: Attempt) -> Attempt:
        if self._ca_file is None:
            return attempt
        config = attempt.config
        store = config.execution.store.model_copy(update={"ca_file": str(self._ca_file)})
        execution = config.execution.model_copy(update={"store": store})
        return replace(attempt, config=config.model_copy(update={"execution": execution}))

    def fetch_report(self) -> None:
        """Bring the report beside the status; an older one is not left standing for a run that has none."""
        self._workdir.report_file.unlink(missing_ok=True)
        uri, storage = self._job.status.report_uri, storage_of(self._job, self._installation)
        if uri is None or storage is None:
            return
        settings = store_settings(storage, str(self._ca_file))
        body = open_store(settings, self._installation.mounts).get_bytes(uri.removeprefix(storage.uri).strip("/"))
        if body is not None:
            self._workdir.replace(self._workdir.report_file, body)

    def _wait(self, decision: Decision) -> None:
        try:
            self._processes.changed.get(timeout=min(LOOK_SECONDS, decision.requeue_after or LOOK_SECONDS))
        except Empty:
            return


def _installation(workdir: Workdir, mounts: dict[str, str]) -> Installation:
    """This machine: results go beside the status unless the manifest says where, one stage at a time."""
    return Installation(
        storage=Storage(uri=workdir.root.as_uri()),
        on_cluster=False,
        cache=str(workdir.cache),
        mounts=mounts,
        default_resources=Resources(limits={"memory": str(machine_bytes())}),
        # A benchmark that shares its cores measures its neighbours.
        max_parallel=1,
    )


def _beginning(status: DistillationJobStatus) -> DistillationJobStatus:
    """Where a run starts: a finished one is visited again, stage by stage; an interrupted one goes on."""
    return status.model_copy(update={"plan": None}) if status.finished_at else status


def _write_ca_file(storage: Storage | None, workdir: Workdir) -> Path | None:
    if storage is None or storage.ca_bundle is None:
        return None
    file = workdir.attempts / "storage-ca.crt"
    file.write_text(storage.ca_bundle)
    return file


def exit_code_of(summary: Condition) -> int:
    """The exit code that a finished job's Succeeded condition stands for."""
    if summary.status == "True":
        return OK
    gates = (Reason.GATE_FAILED, Reason.GATE_INCONCLUSIVE, Reason.PREFLIGHT_FAILED)
    return GATE_FAILED if summary.reason in gates else FAILED


def _outcome(status: DistillationJobStatus) -> Outcome:
    summary = summary_of(status)
    if summary is None or summary.status == "Unknown":
        return Outcome(status, INTERRUPTED, Reason.SUSPENDED, "interrupted: run it again to go on")
    return Outcome(status, exit_code_of(summary), summary.reason, summary.message)
