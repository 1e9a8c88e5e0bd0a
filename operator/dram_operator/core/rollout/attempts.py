"""The life of an attempt: how one begins, how it ends, and what is kept of it."""

from datetime import timedelta

from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.rollout_status import AttemptRecord, Quarantine, Reach, ReleaseStatus
from dram_operator.core.rollout.cohort import hold_back
from dram_operator.core.rollout.course import Course
from dram_operator.core.rollout.document import QUARANTINED
from dram_operator.core.rollout.edits import judging

HISTORY = 10


def take_up(course: Course) -> None:
    """Follow the spec: begin an attempt, give one up for another release, or leave things as they are."""
    _remember_artifact(course)
    wanted = _wanted(course)
    if wanted is None:
        _await_artifact(course)
        return
    digest, candidate, stable = wanted.release.digest, course.status.candidate, course.status.stable
    if candidate and candidate.release.digest == digest:
        course.update(candidate=candidate.model_copy(update={"source": course.spec.artifact.source}))
    elif stable and stable.release.digest == digest:
        course.update(stable=stable.model_copy(update={"source": course.spec.artifact.source}))
        if candidate and not course.is_going_back():
            _give_way(course, wanted)
    elif _is_held(course, digest):
        if candidate and not course.is_going_back():
            _give_way(course, wanted)
        message = f"{wanted.name} was rolled back here: change artifact, analysis or strategy, or `kubectl dram rollout retry`"
        course.wait(RolloutReason.QUARANTINED, message)
    elif course.knows_devices():
        if candidate:
            _give_way(course, wanted)
        if any(one.digest == digest for one in course.status.quarantined):
            retry(course, digest)
        _begin(course, wanted)


def _remember_artifact(course: Course) -> None:
    """Record what spec.artifact was resolved to; what it was before is of no use any more."""
    resolved, known = course.observed.artifact.resolved, course.status.artifact
    if resolved and resolved.source == course.spec.artifact.source:
        course.update(artifact=resolved)
    elif known and known.source != course.spec.artifact.source:
        course.update(artifact=None)


def _await_artifact(course: Course) -> None:
    view = course.observed.artifact
    again = None if view.look_again_seconds is None else course.now + timedelta(seconds=view.look_again_seconds)
    course.wait(view.reason, view.message, again)


def _wanted(course: Course) -> ReleaseStatus | None:
    """A digest is resolved once: what status knows of this artifact counts, and the job may be gone."""
    for known in (course.status.candidate, course.status.stable):
        if known and known.source == course.spec.artifact.source:
            return known
    return course.observed.artifact.release


def _is_held(course: Course, digest: str) -> bool:
    """Whether the release is in quarantine, and what judged it is what would judge it again."""
    judges = (None, judging(course.spec))
    return any(one.digest == digest and one.judged_by in judges for one in course.status.quarantined)


def _begin(course: Course, release: ReleaseStatus) -> None:
    taken = release.model_copy(update={"source": course.spec.artifact.source, "since": course.stamp})
    course.update(attempt=course.status.attempt + 1, candidate=taken, step=None, analysis=(), rollback=None)
    course.update(reach=Reach(control=hold_back(course.spec.strategy.holdback_percent, course.fleet())))
    course.tell(RolloutReason.RESOLVED, f"attempt {course.status.attempt} offers {taken.name}")


def _give_way(course: Course, wanted: ReleaseStatus) -> None:
    message = f"{course.candidate.name} gives way to {wanted.name}"
    end(course, "Superseded", RolloutReason.SUPERSEDED)
    course.tell(RolloutReason.SUPERSEDED, message)


def complete(course: Course, reason: RolloutReason, message: str) -> None:
    """The candidate becomes stable."""
    release = course.candidate.model_copy(update={"since": course.stamp})
    before = course.status.stable
    end(course, "Completed", reason)
    course.update(stable=release, previous=before)
    course.tell(reason, message)


def end(course: Course, outcome: str, reason: RolloutReason) -> None:
    """Put the attempt on record; there is no candidate any more."""
    candidate = course.candidate
    record = AttemptRecord.model_validate(
        {
            "attempt": course.status.attempt,
            "name": candidate.name,
            "digest": candidate.release.digest,
            "outcome": outcome,
            "reason": reason.value,
            "started_at": candidate.since,
            "finished_at": course.stamp,
        }
    )
    history = (*course.status.history, record)[-HISTORY:]
    course.update(candidate=None, reach=Reach(), step=None, history=history)


def undo(course: Course) -> None:
    """The stable release before this one is stable again; this one is kept away."""
    stable, previous = course.status.stable, course.status.previous
    assert stable is not None
    assert previous is not None
    quarantine(course, stable.release.digest, RolloutReason.UNDONE)
    kept = tuple(one for one in course.status.quarantined if one.digest != previous.release.digest)
    back = previous.model_copy(update={"since": course.stamp})
    course.update(attempt=course.status.attempt + 1, stable=back, previous=None, quarantined=kept, rollback=None)
    course.tell(RolloutReason.UNDONE, f"{previous.name} is stable again instead of {stable.name}")


def quarantine(course: Course, digest: str, reason: RolloutReason) -> None:
    """Keep a release from coming again by itself."""
    others = (one for one in course.status.quarantined if one.digest != digest)
    held = Quarantine(digest=digest, reason=reason.value, since=course.stamp, judged_by=judging(course.spec))
    course.update(quarantined=(*others, held)[-QUARANTINED:])


def retry(course: Course, digest: str) -> None:
    """Release an artifact from quarantine."""
    course.update(quarantined=tuple(one for one in course.status.quarantined if one.digest != digest))
    course.tell(RolloutReason.RETRIED, f"{digest[:12]} may be offered again")
