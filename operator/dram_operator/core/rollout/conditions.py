"""The conditions of a rollout, computed from its course; only their transition times are remembered."""

from dataclasses import dataclass
from typing import Literal

from dram_operator.api.rollout_reasons import RolloutCondition, RolloutReason
from dram_operator.api.rollout_status import RolloutConditionStatus
from dram_operator.core.rollout import rollback
from dram_operator.core.rollout.analysis import Judged
from dram_operator.core.rollout.course import Course

Truth = Literal["True", "False", "Unknown"]
STALLING = frozenset(
    {
        RolloutReason.SPEC_INVALID,
        RolloutReason.QUARANTINED,
        RolloutReason.FLEET_TOO_LARGE,
        RolloutReason.AWAITING_APPROVAL,
        RolloutReason.METRIC_BREACHED,
        RolloutReason.METRIC_INCONCLUSIVE,
        RolloutReason.METRIC_ERROR,
        RolloutReason.METRIC_MISSING,
        RolloutReason.DEVICES_FAILED,
        RolloutReason.STEP_DEADLINE_EXCEEDED,
        RolloutReason.ARTIFACT_NOT_FOUND,
        RolloutReason.ARTIFACT_NOT_RELEASABLE,
        RolloutReason.UPLOAD_FAILED,
        RolloutReason.AWAITING_SIGNATURE,
    }
)
"""What only people can end."""


@dataclass(frozen=True)
class Finding:
    """What a condition should say."""

    status: Truth
    reason: RolloutReason
    message: str = ""


def conditions(course: Course, judged: Judged | None) -> tuple[RolloutConditionStatus, ...]:
    """Every condition, in the order of the enum; tells when the rollback becomes blocked."""
    known = {condition.type: condition for condition in course.status.conditions}
    found = tuple(
        _write(course, kind, _find(kind, course, judged, known.get(kind)), known.get(kind)) for kind in RolloutCondition
    )
    before, after = known.get(RolloutCondition.ROLLBACK_BLOCKED), found[-1]
    if after.status == "True" and (before is None or before.status != "True"):
        course.tell(RolloutReason.ROLLBACK_BLOCKED, after.message, warning=True)
    return found


def _write(
    course: Course, kind: RolloutCondition, finding: Finding, old: RolloutConditionStatus | None
) -> RolloutConditionStatus:
    return RolloutConditionStatus(
        type=kind,
        status=finding.status,
        observed_generation=course.rollout.metadata.generation,
        last_transition_time=old.last_transition_time if old and old.status == finding.status else course.stamp,
        reason=finding.reason.value,
        message=finding.message,
    )


def _find(kind: RolloutCondition, course: Course, judged: Judged | None, old: RolloutConditionStatus | None) -> Finding:
    match kind:
        case RolloutCondition.READY:
            return _ready(course)
        case RolloutCondition.RECONCILING:
            reason, message = course.waits_for or (RolloutReason.COMPLETED, "")
            return Finding("True" if course.status.candidate else "False", reason, message)
        case RolloutCondition.STALLED:
            reason, message = course.waits_for or (RolloutReason.COMPLETED, "")
            return Finding("True" if reason in STALLING else "False", reason, message)
        case RolloutCondition.ARTIFACT_READY:
            return _artifact(course)
        case RolloutCondition.PUBLISHED:
            return _published(course)
        case RolloutCondition.ANALYSED:
            return _analysed(judged, old)
        case RolloutCondition.STEP_TOO_SMALL_TO_JUDGE:
            return _too_small(course, judged, old)
        case RolloutCondition.ROLLBACK_BLOCKED:  # pragma: no branch -- mypy proves that no member is left
            why = rollback.blocked(course)
            reason = RolloutReason.ROLLBACK_BLOCKED if why else RolloutReason.PENDING
            remedy = f"{why}; a new artifact in the spec goes on" if why else ""
            return Finding("True" if why else "False", reason, remedy)


def _ready(course: Course) -> Finding:
    if course.status.candidate or course.waits_for:
        reason, message = course.waits_for or (RolloutReason.PROGRESSING, "")
        return Finding("False", reason, message)
    if not rollback.is_published(course):
        return Finding("False", RolloutReason.PENDING, "the channel document is not signed yet")
    return Finding("True", RolloutReason.COMPLETED, "every device is meant to run the stable release")


def _artifact(course: Course) -> Finding:
    for known in (course.status.candidate, course.status.stable):
        if known and known.source == course.spec.artifact.source:
            return Finding("True", RolloutReason.SIGNED, known.name)
    view = course.observed.artifact
    if view.release:
        return Finding("True", RolloutReason.SIGNED, view.release.name)
    return Finding("False", view.reason, view.message)


def _published(course: Course) -> Finding:
    if course.observed.repository_problem:
        return Finding("False", RolloutReason.REPOSITORY_UNAVAILABLE, course.observed.repository_problem)
    if rollback.is_published(course):
        return Finding("True", RolloutReason.SIGNED)
    return Finding("False", RolloutReason.PENDING, "the channel document is about to be signed")


def _analysed(judged: Judged | None, old: RolloutConditionStatus | None) -> Finding:
    if judged is None:
        return (
            Finding(old.status, RolloutReason(old.reason), old.message)
            if old
            else Finding("Unknown", RolloutReason.PENDING)
        )
    if judged.rollback:
        return Finding("False", RolloutReason.METRIC_BREACHED, judged.rollback[1])
    if judged.waiting:
        return Finding("Unknown", RolloutReason.PENDING, judged.waiting)
    return Finding("True", RolloutReason.METRIC_PASSED)


def _too_small(course: Course, judged: Judged | None, old: RolloutConditionStatus | None) -> Finding:
    if course.status.step is None:
        return Finding("False", RolloutReason.ENOUGH_DEVICES)
    if judged is None or judged.too_small is None:
        return (
            Finding(old.status, RolloutReason(old.reason), old.message)
            if old
            else Finding("Unknown", RolloutReason.PENDING)
        )
    if judged.too_small:
        return Finding("True", RolloutReason.TOO_FEW_DEVICES, "; ".join(judged.too_small))
    return Finding("False", RolloutReason.ENOUGH_DEVICES)
