"""A clock that was set back: what status wrote under the clock before has not happened yet, and counts from now."""

from datetime import timedelta

from dram_operator.core.rollout.course import Course
from dram_operator.core.rollout.evidence import FRESH_INTERVALS
from dram_operator.core.times import parse_time, stamp

STEP_MOMENTS = ("started_at", "bake_started_at", "active_since")


def take_back(course: Course) -> None:
    """Take moments in the future for now, and looks in the future for stale ones.

    Waiting for the clock to catch up would be blind for as long: every new look would be older than the last one.
    """
    status = course.status
    if status.step:
        ahead = [name for name in STEP_MOMENTS if _is_ahead(course, getattr(status.step, name))]
        course.update_step(**dict.fromkeys(ahead, course.stamp))
    if status.candidate and _is_ahead(course, status.candidate.since):
        # What telemetry says counts from here on, so the figures of an attempt in the future would be of nothing.
        course.update(candidate=status.candidate.model_copy(update={"since": course.stamp}))
    if status.rollback and _is_ahead(course, status.rollback.started_at):
        course.update(rollback=status.rollback.model_copy(update={"started_at": course.stamp}))
    stale = stamp(course.now - timedelta(seconds=(FRESH_INTERVALS + 1) * course.spec.analysis.interval_seconds))
    course.update(
        analysis=tuple(
            one.model_copy(update={"looked_at": stale}) if _is_ahead(course, one.looked_at) else one
            for one in status.analysis
        )
    )


def _is_ahead(course: Course, moment: str | None) -> bool:
    return moment is not None and parse_time(moment) > course.now
