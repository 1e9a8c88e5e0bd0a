"""`DistillationJob.status`: what the operator tells, conditions and reasons included."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from dram_operator.api.schema import by
from dram_workers.model import Model
from dram_workers.results import GateRow, StageResult, Word
from dram_workers.stages import StageKind

Path = Annotated[str, Field(max_length=1024)]
Timestamp = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]


class ConditionType(StrEnum):
    """The conditions of a DistillationJob; all are present from the first visit."""

    SUCCEEDED = "Succeeded"
    """The summary: Unknown until the job is finished."""
    RECONCILING = "Reconciling"
    """True while there is work to do (kstatus)."""
    STALLED = "Stalled"
    """True when only a human can help (kstatus)."""
    DATA_READY = "DataReady"
    """Teacher, tokenizer, data and golden suite are pinned and checked."""
    DISTILLED = "Distilled"
    """The student is trained."""
    EXPORTED = "Exported"
    """Every required variant is converted and proven."""
    GATES_PASSED = "GatesPassed"
    """Every required variant passed its gates."""
    PUBLISHED = "Published"
    """Artifacts, model card and report are in the store."""


class Reason(StrEnum):
    """Reasons that the operator sets. A failed stage's own reason (see `WorkerReason`) is shown as it is."""

    PENDING = "Pending"
    """Its turn has not come."""
    RUNNING = "Running"
    """Its stage is at work."""
    COMPLETED = "Completed"
    """Done."""
    CACHED = "Cached"
    """An earlier result with the same key was taken."""
    SUSPENDED = "Suspended"
    """spec.suspend is true: no pod runs."""
    SUSPENDING = "Suspending"
    """Pods are saving a checkpoint and stopping."""
    RETRYING = "Retrying"
    """An attempt failed; the next one waits for its back-off."""
    QUEUED = "Queued"
    """Kueue has not admitted the pods."""
    UNSCHEDULABLE = "Unschedulable"
    """No node fits the pods."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """The worker image cannot be pulled."""
    CONTAINER_CONFIG_FAILED = "ContainerConfigFailed"
    """The container cannot be made, most often because a Secret that the spec names is missing."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    """A ResourceQuota or LimitRange refuses the pods."""
    GANG_INCOMPLETE = "GangIncomplete"
    """Not all training pods could start in time."""
    PENDING_DEADLINE_EXCEEDED = "PendingDeadlineExceeded"
    """Pods waited for a node longer than spec.pendingDeadlineSeconds."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """The job ran longer than spec.activeDeadlineSeconds."""
    RETRIES_EXHAUSTED = "RetriesExhausted"
    """An attempt failed and spec.retries is used up."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The container hit its memory limit."""
    POD_DISRUPTED = "PodDisrupted"
    """Preemption, eviction or node loss; retried for free."""
    RESULT_UNREADABLE = "ResultUnreadable"
    """A stage ended well but left no readable result."""
    WARNED = "Warned"
    """A stage ended well and warns of what may go wrong later. Only of Events."""
    PREFLIGHT_FAILED = "PreflightFailed"
    """The untrained student already misses a limit that training cannot help; the message has gate, value, limit and remedy."""
    GATE_FAILED = "GateFailed"
    """A required variant failed a gate."""
    GATE_INCONCLUSIVE = "GateInconclusive"
    """A limit lies inside the measured interval."""
    GATES_WARNED = "GatesWarned"
    """Passed, with warnings to read."""
    EXPORT_FAILED = "ExportFailed"
    """A required variant could not be converted."""
    SPEC_INVALID = "SpecInvalid"
    """The spec is not one that this operator can run, e.g. file:// on a cluster or no storage anywhere."""
    NOT_REACHED = "NotReached"
    """The job ended before its turn."""


class Condition(Model):
    """One condition, by the Kubernetes API conventions."""

    type: ConditionType
    """Which condition."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: int
    """The spec's generation that this speaks of."""
    last_transition_time: Timestamp
    """When status last changed."""
    reason: Annotated[str, Field(max_length=64)]
    """One documented CamelCase word."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """A sentence for people: field, value and remedy where something is wrong."""


class StageState(StrEnum):
    """Where a stage stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    """Not needed, because what it works on failed and is optional, or the gates were already decided."""


class PlannedInput(Model):
    """An input of a planned stage: which output of which other stage."""

    stage: Word
    """Id of the other stage."""
    output: Word
    """Name of its output."""


class PlannedStage(Model):
    """A node of the plan graph."""

    id: Word
    """Unique in the plan."""
    kind: StageKind
    """What it does."""
    inputs: Annotated[dict[str, PlannedInput], Field(max_length=64)] = {}
    """Inputs by name; the stage waits for all of them."""
    after: Annotated[tuple[Word, ...], Field(max_length=16)] = ()
    """Stages that it waits for although it reads nothing of theirs; one of them must have ended well."""
    identity: Annotated[dict[str, Any], Field(max_length=64)]
    """The recipe, as the worker will read it."""
    execution: Annotated[dict[str, Any], Field(max_length=64)] = {}
    """What is particular to this stage's execution, e.g. workers."""
    variant: Word | None = None
    """The variant that it works for."""


class Plan(Model):
    """What this run does, pinned when it started, so that an operator upgrade does not change it."""

    spec_hash: Word
    """SHA-256 of the part of the spec that makes a run."""
    execution_hash: Word
    """SHA-256 of the part that says how it is carried out."""
    image: Annotated[str, Field(max_length=512)] = ""
    """Worker image of the run."""
    stages: Annotated[tuple[PlannedStage, ...], Field(max_length=128, json_schema_extra=by("id"))]
    """The graph, in topological order."""


class StageStatus(Model):
    """What became of a planned stage."""

    id: Word
    """Its id in the plan."""
    state: StageState
    """Where it stands."""
    attempt: int = 0
    """Number of the latest attempt."""
    retries: int = 0
    """Attempts that counted against spec.retries."""
    key: Word | None = None
    """Key of its result folder, once its inputs are known."""
    reason: Word | None = None
    """Why it waits, failed or was skipped."""
    message: Annotated[str, Field(max_length=1024)] | None = None
    """The same, in a sentence; of a stage that ended well, what it warns of."""
    started_at: Timestamp | None = None
    """When its latest attempt was created."""
    finished_at: Timestamp | None = None
    """When its latest attempt ended."""
    retry_at: Timestamp | None = None
    """When the next attempt may start."""
    result: StageResult | None = None
    """What it told when it ended well."""


class ProgressStatus(Model):
    """How far the running stage is. Never decides anything."""

    stage: Word
    """The stage that reports."""
    step: int
    """Steps done."""
    total_steps: int
    """Steps in all; 0 when unknown."""
    percent: int | None = None
    """Share of the whole job that is done."""
    eta_seconds: int | None = None
    """Estimated seconds until this stage ends."""
    loss: float | None = None
    """Latest training loss."""
    updated_at: Timestamp
    """When this was last brought up to date."""


class CheckpointStatus(Model):
    """The last complete checkpoint."""

    step: int
    """Optimizer step."""
    uri: Path
    """Its folder in the store."""


class VariantStatus(Model):
    """One variant and whether it may be released."""

    name: Word
    """As in spec.exports."""
    uri: Path | None = None
    """Folder of its files; set only when it is releasable."""
    sha256: Word | None = None
    """Digest of the artifact's manifest."""
    size_bytes: int | None = None
    """Size of its files."""
    scores: Annotated[dict[str, float], Field(max_length=64)] = {}
    """Measured figures by name."""
    gate: Literal["Pending", "Pass", "Warn", "Fail"] = "Pending"
    """The worst verdict of its gates; an inconclusive or unverified one counts as Fail unless it only warns."""


class DistillationJobStatus(Model):
    """The observed state."""

    observed_generation: int = 0
    """Generation of the spec that this status speaks of."""
    run: int = 0
    """Number of the run; a changed spec starts the next one."""
    plan: Plan | None = None
    """The pinned plan."""
    stages: Annotated[tuple[StageStatus, ...], Field(max_length=128, json_schema_extra=by("id"))] = ()
    """The plan's stages."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=by("type"))] = ()
    """Conditions by type."""
    progress: ProgressStatus | None = None
    """Latest report of the running stage."""
    checkpoint: CheckpointStatus | None = None
    """Latest checkpoint."""
    variants: Annotated[tuple[VariantStatus, ...], Field(max_length=16, json_schema_extra=by("name"))] = ()
    """The variants."""
    gates: Annotated[tuple[GateRow, ...], Field(max_length=256)] = ()
    """Every gate decided so far."""
    best: Word | None = None
    """The releasable variant with the highest golden score."""
    best_score: Word | None = None
    """Its score, for people."""
    gate: Word | None = None
    """The gates in a word, for people: Pending, Pass, Warn, or the first that failed."""
    stage: Word | None = None
    """The stage at work, for people."""
    report_uri: Path | None = None
    """The report."""
    started_at: Timestamp | None = None
    """When the run started."""
    finished_at: Timestamp | None = None
    """When the run ended."""
    active_seconds: int = 0
    """Seconds this run was active before the present stretch; suspension does not count."""
    active_since: Timestamp | None = None
    """Start of the present active stretch."""
