"""What an attempt's end, or its waiting, means for its stage."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from dram_operator.api.distillation_job import DistillationJobSpec
from dram_operator.api.status import PlannedStage, Reason, StageState, StageStatus
from dram_operator.core.observed import AttemptView, PodView
from dram_operator.core.times import parse_time, stamp
from dram_workers.errors import ExitCode, WorkerReason
from dram_workers.results import StageMessage
from dram_workers.stages import StageKind

FIRST_BACKOFF_SECONDS = 5
LONGEST_BACKOFF_SECONDS = 300
POD_GRACE_SECONDS = 30
"""How long a finished Job's pods may stay unseen before its result counts as lost."""

LONGEST_MESSAGE = 1000

FINAL_EXIT_CODES = frozenset({ExitCode.BAD_INPUT, ExitCode.GATE_INPUT_MISSING, ExitCode.NO_PERMISSION})
FREE_REASONS = frozenset({"Evicted", "Preempting", "NodeLost", "Shutdown", "Terminated", "NodeShutdown"})
CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
PULL_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed and whether another one may help."""

    reason: str
    message: str
    final: bool = False
    free: bool = False
    """The attempt does not count against spec.retries."""


def read_message(text: str | None) -> StageMessage | None:
    """The worker's termination message; None when there is none that parses."""
    if not text:
        return None
    try:
        return StageMessage.model_validate_json(text)
    except ValidationError:
        return None


def absorb(stage: StageStatus, planned: PlannedStage, view: AttemptView, now: datetime, retries: int) -> StageStatus:
    """The stage after what is seen of its latest attempt; the same object while that attempt is at work."""
    if view.succeeded:
        return _absorb_success(stage, planned, view, now, retries)
    if view.failed:
        return failed(stage, classify(view, memory_field(planned.kind)), now, retries)
    reason, message = waiting(view)
    if (reason, message) == (stage.reason, stage.message):
        return stage
    return stage.model_copy(update={"reason": reason, "message": message})


def _absorb_success(
    stage: StageStatus, planned: PlannedStage, view: AttemptView, now: datetime, retries: int
) -> StageStatus:
    told = [read_message(pod.message) for pod in view.pods]
    message = next((message for message in told if message and message.result), None)
    if message and (result := message.result):
        reason = Reason.CACHED if result.cached else Reason.COMPLETED
        update: dict[str, object] = {"state": StageState.SUCCEEDED, "reason": reason, "result": result}
        update["message"] = message.message[:LONGEST_MESSAGE] or None
        return stage.model_copy(update=update | {"key": result.key, "finished_at": stamp(view.finished_at or now)})
    ended = view.finished_at or view.created_at
    # of several pods any one may have the result, and the watches show them one by one
    seen = sum(pod.exit_code is not None for pod in view.pods)
    if seen < pods(planned) and now - ended < timedelta(seconds=POD_GRACE_SECONDS):
        return stage
    failure = Failure(Reason.RESULT_UNREADABLE, "the stage ended well but its pod left no readable result")
    return failed(stage, failure, now, retries)


def classify(view: AttemptView, memory_field: str) -> Failure:
    """The first pod that ended badly decides: its peers usually die because of it.

    `memory_field` is what the reader should raise when it hit its memory limit.
    """
    ended = [pod for pod in view.pods if pod.exit_code not in (None, 0) or pod.phase == "Failed"]
    if any(pod.disrupted or pod.reason in FREE_REASONS for pod in ended):
        return Failure(Reason.POD_DISRUPTED, "a pod was preempted, evicted or lost with its node", free=True)
    if not ended:
        return Failure(Reason.POD_DISRUPTED, view.failure or "the pods vanished before they told why", free=False)
    blamed = [pod for pod in ended if not _is_bystander(pod)]
    if not blamed:
        return Failure(WorkerReason.INTERRUPTED, "the pods were told to stop, and saved what could be saved", free=True)
    first = min(blamed, key=lambda pod: (pod.finished_at or view.created_at, pod.index or 0))
    return _classify_pod(first, memory_field)


def _is_bystander(pod: PodView) -> bool:
    """A rank that only stopped because it was told to, or because its peer was gone."""
    message = read_message(pod.message)
    return pod.exit_code == ExitCode.TERMINATED or (message is not None and message.reason == WorkerReason.INTERRUPTED)


def _classify_pod(pod: PodView, memory_field: str) -> Failure:
    message = read_message(pod.message)
    if pod.reason == "OOMKilled" or (message and message.reason == WorkerReason.OUT_OF_MEMORY):
        return Failure(Reason.OUT_OF_MEMORY, f"{pod.name} hit its memory limit: raise {memory_field}", final=True)
    if message:
        final = pod.exit_code in FINAL_EXIT_CODES
        return Failure(message.reason, sentence(message), final=final)
    code = "no exit code" if pod.exit_code is None else f"exit code {pod.exit_code}"
    words = f" ({pod.reason})" if pod.reason and pod.reason != "Error" else ""
    return Failure(WorkerReason.INTERNAL, f"{pod.name} ended with {code}{words} and no message; see its log")


def resources_key(kind: StageKind) -> str:
    """The field of spec.podTemplate.resources that sizes this kind of stage."""
    if kind is StageKind.PREFLIGHT:
        # its figures are held against the same limits
        kind = StageKind.BENCH
    if kind is StageKind.TEACH:
        return StageKind.SYNTHESIZE.value
    sized = (StageKind.TRAIN, StageKind.SYNTHESIZE, StageKind.EVALUATE, StageKind.BENCH)
    return kind.value if kind in sized else "default"


def memory_field(kind: StageKind) -> str:
    """The field that limits the memory of this kind of stage."""
    return f"spec.podTemplate.resources.{resources_key(kind)}.limits.memory"


def sentence(message: StageMessage) -> str:
    """A worker's message as one line: field, what happened, remedy."""
    text = f"{message.field}: {message.message}" if message.field else message.message
    return f"{text}: {message.remedy}" if message.remedy else text


def failed(stage: StageStatus, failure: Failure, now: datetime, retries: int) -> StageStatus:
    """The stage after a failed attempt: waiting for the next one, or failed for good."""
    message = failure.message[:LONGEST_MESSAGE]
    update: dict[str, object] = {"reason": failure.reason, "message": message, "finished_at": stamp(now)}
    if failure.final:
        return stage.model_copy(update=update | {"state": StageState.FAILED})
    if failure.free:
        return stage.model_copy(update=update | {"state": StageState.PENDING, "retry_at": stamp(now)})
    if stage.retries >= retries:
        update["message"] = f"{message} (after {stage.retries + 1} attempts; spec.retries is {retries})"[
            :LONGEST_MESSAGE
        ]
        return stage.model_copy(update=update | {"state": StageState.FAILED})
    backoff = min(FIRST_BACKOFF_SECONDS * 2**stage.retries, LONGEST_BACKOFF_SECONDS)
    update |= {"state": StageState.PENDING, "retries": stage.retries + 1}
    return stage.model_copy(update=update | {"retry_at": stamp(now + timedelta(seconds=backoff))})


@dataclass(frozen=True)
class Remedies:
    """What the reader can do where an attempt's pods do not start."""

    quota: str = "raise the quota or lower spec.podTemplate.resources"
    image: str = "check spec.podTemplate.image and the pull secrets"
    container: str = "create what spec.storage.secretRef or spec.podTemplate.envFromSecrets names"
    nodes: str = "lower spec.podTemplate.resources or add nodes"


OF_STAGE = Remedies()


def waiting(view: AttemptView, remedies: Remedies = OF_STAGE) -> tuple[str, str | None]:
    """Why an unfinished attempt does not work yet, as reason and message; Running when it does."""
    found = _held_back(view, remedies) or _cannot_start(view, remedies) or _not_placed(view, remedies)
    return (found[0], found[1][:LONGEST_MESSAGE]) if found else (Reason.RUNNING, None)


def _held_back(view: AttemptView, remedies: Remedies) -> tuple[str, str] | None:
    if view.suspended:
        return Reason.QUEUED, "Kueue has not admitted the pods yet"
    if view.refusal:
        return Reason.QUOTA_EXCEEDED, f"the namespace refuses the pods: {view.refusal}; {remedies.quota}"
    return None


def _cannot_start(view: AttemptView, remedies: Remedies) -> tuple[str, str] | None:
    for pod in view.pods:
        said = f"{pod.name}: {pod.waiting_message or pod.waiting_reason}"
        if pod.waiting_reason in PULL_REASONS:
            return Reason.IMAGE_PULL_FAILED, f"{said}; {remedies.image}"
        if pod.waiting_reason in CONFIG_REASONS:
            return Reason.CONTAINER_CONFIG_FAILED, f"{said}; {remedies.container}"
    return None


def _not_placed(view: AttemptView, remedies: Remedies) -> tuple[str, str] | None:
    stuck = [pod for pod in view.pods if pod.unschedulable]
    if not stuck:
        return None
    if any(pod.started for pod in view.pods):
        placed = len(view.pods) - len(stuck)
        return Reason.GANG_INCOMPLETE, f"{placed} of {len(view.pods)} pods are placed: {stuck[0].unschedulable}"
    return Reason.UNSCHEDULABLE, f"{stuck[0].unschedulable}; {remedies.nodes}"


def pods(node: PlannedStage) -> int:
    """Pods that share the stage."""
    return int(node.execution.get("workers", 1))


def pods_needed(node: PlannedStage) -> int:
    """Pods without which nothing goes on: ranks need each other, the teacher's pods only the store."""
    return pods(node) if node.kind is StageKind.TRAIN else 1


def is_placed(view: AttemptView, workers: int) -> bool:
    """Whether all pods of the attempt have started, now or earlier."""
    return sum(pod.started or pod.exit_code is not None for pod in view.pods) >= workers


def pending_until(view: AttemptView, spec: DistillationJobSpec) -> datetime:
    """When an attempt that is not placed is torn down."""
    return view.created_at + timedelta(seconds=spec.pending_deadline_seconds)


def gave_up_waiting(view: AttemptView, spec: DistillationJobSpec) -> Failure:
    """The failure of an attempt whose pods were not placed in time."""
    reason, message = waiting(view)
    if reason == Reason.RUNNING:
        reason, message = Reason.PENDING_DEADLINE_EXCEEDED, "the pods were not placed"
    waited = f"; waited {spec.pending_deadline_seconds} s (spec.pendingDeadlineSeconds)"
    return Failure(reason, f"{message}{waited}")


def is_due(stage: StageStatus, now: datetime) -> bool:
    """Whether a waiting stage's back-off is over."""
    return stage.retry_at is None or parse_time(stage.retry_at) <= now
