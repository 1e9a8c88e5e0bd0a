"""Sending a candidate back: decided once, remembered, told to the devices, and watched until they are back."""

from datetime import timedelta

from dram_agent.document import ChannelDocument
from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.rollout_status import RollbackStatus
from dram_operator.core.rollout.attempts import end, quarantine
from dram_operator.core.rollout.course import Course
from dram_operator.core.rollout.document import channel_document
from dram_operator.core.times import parse_time

DEADLINE_SECONDS = 3600
"""A rollback that takes longer is called blocked; it is tried on."""
CHECK_SECONDS = 10.0
ALL_PERCENT = 100


def start(course: Course, reason: RolloutReason, message: str) -> None:
    """Withdraw the candidate, and keep it from coming again by itself."""
    digest = course.candidate.release.digest
    quarantine(course, digest, reason)
    percent = min(ALL_PERCENT, course.spec.rollback.max_percent_per_minute)
    begun = RollbackStatus(
        digest=digest, reason=reason.value, message=message, started_at=course.stamp, percent=percent
    )
    course.update(rollback=begun)
    course.tell(
        RolloutReason.ROLLING_BACK, f"{course.candidate.name} is sent back: {reason.value}: {message}", warning=True
    )


def go_on(course: Course) -> None:
    """Send the next devices back; finish when the document is signed and every device that is online obeyed."""
    rollback = course.status.rollback
    assert rollback is not None
    minutes = int(course.since(rollback.started_at) // 60) + 1
    percent = max(rollback.percent, min(ALL_PERCENT, minutes * course.spec.rollback.max_percent_per_minute))
    remaining = _remaining(course, rollback.digest)
    course.update(rollback=rollback.model_copy(update={"percent": percent, "remaining": remaining or 0}))
    if percent == ALL_PERCENT and remaining == 0 and is_published(course):
        _finish(course)
        return
    if percent < ALL_PERCENT:
        course.wakeups.append(parse_time(rollback.started_at) + timedelta(minutes=minutes))
    course.wakeups.append(course.now + timedelta(seconds=CHECK_SECONDS))
    course.wait(RolloutReason.ROLLING_BACK, f"{rollback.reason}: {rollback.message}")


def blocked(course: Course) -> str:
    """Why the rollback on its way cannot go on; empty when it can, or none is."""
    rollback = course.status.rollback
    if rollback is None or not course.is_going_back():
        return ""
    if course.observed.repository_problem:
        return f"the release repository cannot be written: {course.observed.repository_problem}"
    if _remaining(course, rollback.digest) is None and course.since(rollback.started_at) > DEADLINE_SECONDS:
        return "telemetry cannot be had, so nobody knows whether the devices are back"
    if course.since(rollback.started_at) > DEADLINE_SECONDS and not rollback.remaining:
        return f"the channel document could not be signed within {DEADLINE_SECONDS} s"
    if course.since(rollback.started_at) > DEADLINE_SECONDS:
        return f"{rollback.remaining} devices that are online still run the release after {DEADLINE_SECONDS} s"
    return ""


def document_of(course: Course) -> ChannelDocument:
    """What is to be signed by the present status."""
    rollout = course.rollout.model_copy(update={"status": course.status})
    return channel_document(rollout, course.delivery)


def is_published(course: Course) -> bool:
    """Whether the signed document says what the status says."""
    return course.observed.document == document_of(course)


def _remaining(course: Course, digest: str) -> int | None:
    """Online devices that still run the release; None when nobody can tell."""
    if course.observed.totals is not None:
        return course.observed.totals.running.get(digest, 0)
    if course.observed.reports is None:
        return None
    return sum(
        report.release == digest and course.is_fresh(report.last_seen) for report in course.observed.reports.values()
    )


def _finish(course: Course) -> None:
    rollback = course.status.rollback
    assert rollback is not None
    name = course.candidate.name
    end(course, "RolledBack", RolloutReason(rollback.reason))
    course.update(rollback=rollback.model_copy(update={"completed_at": course.stamp, "remaining": 0}))
    course.tell(RolloutReason.ROLLED_BACK, f"no device that is online runs {name} any more")
