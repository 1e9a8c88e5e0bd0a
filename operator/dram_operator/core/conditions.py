"""The conditions, computed from the stages; only their transition times are remembered."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from dram_operator.api.status import Condition, ConditionType, DistillationJobStatus, Reason, StageState, StageStatus
from dram_operator.core.times import stamp
from dram_workers.results import GateRow
from dram_workers.stages import StageKind

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Finding:
    """What a condition should say."""

    status: Truth
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Picture:
    """All that conditions are computed from."""

    status: DistillationJobStatus
    generation: int
    required: frozenset[str]
    """Names of the variants that the job needs."""
    suspended: bool
    ended: Finding | None
    """The end of the job as `Succeeded` will tell it; None while it goes on."""

    def of_kind(self, *kinds: StageKind) -> list[StageStatus]:
        """Stages of these kinds, without optional variants' and in the plan's order."""
        plan = self.status.plan.stages if self.status.plan else ()
        wanted = {
            node.id for node in plan if node.kind in kinds and (not node.variant or node.variant in self.required)
        }
        return [stage for stage in self.status.stages if stage.id in wanted]


def conditions(picture: Picture, now: datetime) -> tuple[Condition, ...]:
    """Every condition, in the order of the enum."""
    known = {condition.type: condition for condition in picture.status.conditions}
    return tuple(_write(kind, _find(kind, picture), known.get(kind), picture.generation, now) for kind in ConditionType)


def _write(kind: ConditionType, finding: Finding, old: Condition | None, generation: int, now: datetime) -> Condition:
    since = old.last_transition_time if old and old.status == finding.status else stamp(now)
    return Condition(
        type=kind,
        status=finding.status,
        observed_generation=generation,
        last_transition_time=since,
        reason=finding.reason,
        message=finding.message[:1024],
    )


def _find(kind: ConditionType, picture: Picture) -> Finding:
    match kind:
        case ConditionType.SUCCEEDED:
            return picture.ended or _working(picture, "Unknown")
        case ConditionType.RECONCILING:
            return Finding("False", picture.ended.reason) if picture.ended else _working(picture, "True")
        case ConditionType.STALLED:
            if picture.ended and picture.ended.status == "False":
                return Finding("True", picture.ended.reason, picture.ended.message)
            return Finding("False", picture.ended.reason if picture.ended else Reason.RUNNING)
        case ConditionType.DATA_READY:
            return _reached(picture, StageKind.RESOLVE, StageKind.SYNTHESIZE, StageKind.DATA)
        case ConditionType.DISTILLED:
            return _reached(picture, StageKind.TEACH, StageKind.TRAIN)
        case ConditionType.EXPORTED:
            return _reached(picture, StageKind.EXPORT)
        case ConditionType.GATES_PASSED:
            return _gates(picture)
        case ConditionType.PUBLISHED:  # pragma: no branch -- mypy proves that no member is left
            return _reached(picture, StageKind.PUBLISH)


def _working(picture: Picture, status: Truth) -> Finding:
    stages = picture.status.stages
    if picture.suspended:
        running = any(stage.state is StageState.RUNNING for stage in stages)
        return Finding(status if running else _rest(status), Reason.SUSPENDING if running else Reason.SUSPENDED)
    busy = next((stage for stage in stages if stage.state is StageState.RUNNING), None)
    retrying = next((stage for stage in stages if stage.state is StageState.PENDING and stage.reason), None)
    if busy:
        return Finding(status, busy.reason or Reason.RUNNING, f"{busy.id}: {busy.message or 'at work'}")
    if retrying:
        return Finding(status, Reason.RETRYING, f"{retrying.id}: {retrying.reason}: {retrying.message}")
    return Finding(status, Reason.PENDING)


def _rest(status: Truth) -> Truth:
    """A suspended job has nothing to reconcile, and still no outcome."""
    return "False" if status == "True" else status


def _reached(picture: Picture, *kinds: StageKind) -> Finding:
    stages = picture.of_kind(*kinds)
    bad = next((stage for stage in stages if stage.state is StageState.FAILED), None)
    if bad:
        return Finding("False", bad.reason or Reason.PENDING, f"{bad.id}: {bad.message or ''}")
    if stages and all(stage.state is StageState.SUCCEEDED for stage in stages):
        cached = all(stage.reason == Reason.CACHED for stage in stages)
        warning = next((f"{stage.id}: {stage.message}" for stage in stages if stage.message), "")
        return Finding("True", Reason.CACHED if cached else Reason.COMPLETED, warning or _stopped_early(stages))
    if picture.ended:
        return Finding("False", Reason.NOT_REACHED)
    busy = next((stage for stage in stages if stage.state is StageState.RUNNING), None)
    if busy:
        return Finding("Unknown", busy.reason or Reason.RUNNING, f"{busy.id}: {busy.message or 'at work'}")
    return Finding("Unknown", Reason.PENDING)


def _stopped_early(stages: list[StageStatus]) -> str:
    """That a training ended before its last step is no failure, but nobody should have to look for it."""
    facts = ((stage.id, stage.result.facts.get("stoppedEarly")) for stage in stages if stage.result)
    return "; ".join(f"{stage}: stopped early, {told}" for stage, told in facts if told)


def _gates(picture: Picture) -> Finding:
    rows = [row for row in picture.status.gates if row.variant in picture.required]
    variants = {variant.name: variant.gate for variant in picture.status.variants}
    failing = next((row for row in rows if row.verdict in ("Fail", "Unverified", "Inconclusive")), None)
    if failing:
        return Finding("False", gate_reason(failing), f"{failing.variant}: {failing.gate}: {failing.message}")
    if picture.required and all(variants.get(name) in ("Pass", "Warn") for name in picture.required):
        warned = next((row for row in rows if row.verdict == "Warn"), None)
        if warned:
            return Finding("True", Reason.GATES_WARNED, f"{warned.variant}: {warned.gate}: {warned.message}")
        return Finding("True", Reason.COMPLETED)
    return Finding("False", Reason.NOT_REACHED) if picture.ended else Finding("Unknown", Reason.PENDING)


def gate_reason(row: GateRow) -> Reason:
    """What to call the end of a job that this gate ended."""
    if row.stage == "Preflight":
        return Reason.PREFLIGHT_FAILED
    return Reason.GATE_INCONCLUSIVE if row.verdict == "Inconclusive" else Reason.GATE_FAILED
