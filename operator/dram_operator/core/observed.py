"""What `decide` is shown, and what it answers with."""

from dataclasses import dataclass, field
from datetime import datetime

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.status import DistillationJobStatus
from dram_workers.results import Progress
from dram_workers.stages import StageConfig


@dataclass(frozen=True)
class PodView:
    """One pod (or local process) of an attempt."""

    name: str
    uid: str = ""
    index: int | None = None
    """Completion index in an Indexed Job."""
    phase: str = "Pending"
    """Pending, Running, Succeeded, Failed or Unknown."""
    scheduled: bool = False
    started: bool = False
    """Its container has started."""
    exit_code: int | None = None
    message: str | None = None
    """Termination message of the worker container."""
    waiting_reason: str | None = None
    """Why the container does not start, e.g. ImagePullBackOff."""
    waiting_message: str | None = None
    reason: str | None = None
    """Why it was ended, e.g. OOMKilled or Evicted."""
    disrupted: bool = False
    """Ended by preemption, eviction or the loss of its node."""
    unschedulable: str | None = None
    """The scheduler's words, when no node fits."""
    finished_at: datetime | None = None


@dataclass(frozen=True)
class AttemptView:
    """One attempt of a stage: a Job, or a local process."""

    name: str
    stage: str
    attempt: int
    run: int
    created_at: datetime
    uid: str = ""
    succeeded: bool = False
    failed: bool = False
    suspended: bool = False
    """Held back by Kueue."""
    deleting: bool = False
    expiring: bool = False
    """Its time to live is set."""
    finished_at: datetime | None = None
    failure: str | None = None
    """Why the Job itself says it failed, when no pod tells."""
    pods: tuple[PodView, ...] = ()
    refusal: str | None = None
    """Why the API server refuses its pods: quota, limit range, pod security."""

    @property
    def finished(self) -> bool:
        """Whether it has ended, well or badly."""
        return self.succeeded or self.failed


@dataclass(frozen=True)
class ProgressView:
    """The latest report of a stage, and the first one of the same attempt, for the rate."""

    latest: Progress
    latest_at: datetime
    first_step: int
    first_at: datetime

    @classmethod
    def following(cls, known: "ProgressView | None", report: Progress, now: datetime) -> "ProgressView":
        """What is known after a report; one of another stage or attempt starts the rate anew."""
        if known and (known.latest.stage, known.latest.attempt) == (report.stage, report.attempt):
            return cls(report, now, known.first_step, known.first_at)
        return cls(report, now, report.step, now)


@dataclass(frozen=True)
class Observed:
    """One job as the watches have shown it."""

    job: DistillationJob
    attempts: tuple[AttemptView, ...] = ()
    progress: ProgressView | None = None


@dataclass(frozen=True)
class Attempt:
    """An attempt to start."""

    name: str
    """Name of its Job."""
    stage: str
    attempt: int
    run: int
    workers: int
    """Pods that share the stage: the gang of `train`, or those in which the teacher works."""
    config: StageConfig


@dataclass(frozen=True)
class JobEvent:
    """A Kubernetes Event to record."""

    type: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """What to do, in this order: delete, write status, start, expire, delete_self, record events."""

    status: DistillationJobStatus
    start: tuple[Attempt, ...] = ()
    delete: tuple[str, ...] = ()
    """Attempts to delete in the foreground, by name."""
    expire: tuple[str, ...] = ()
    """Attempts whose result is safely in status: their Jobs may go."""
    delete_self: bool = False
    events: tuple[JobEvent, ...] = field(default=())
    requeue_after: float | None = None
    """Seconds until something is due although nothing changes."""
