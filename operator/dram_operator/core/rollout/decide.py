"""`decide`: what an EdgeRollout needs next. A pure function of what is observed and the time."""

from dataclasses import replace
from datetime import datetime, timedelta

from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.rollout_status import EdgeRolloutStatus
from dram_operator.core.rollout import attempts, commands, rollback, steps
from dram_operator.core.rollout.analysis import Judged
from dram_operator.core.rollout.commands import Command, Verb
from dram_operator.core.rollout.conditions import conditions
from dram_operator.core.rollout.course import Course
from dram_operator.core.rollout.document import QUARANTINED, Delivery, adopt, is_behind, is_empty, step_at_work
from dram_operator.core.rollout.edits import judging, leading_to
from dram_operator.core.rollout.observed import Decision, Observed
from dram_operator.core.rollout.setback import take_back
from dram_operator.core.times import parse_time

FAREWELL_SECONDS = 300
"""How long a deleted rollout waits for the repository before it goes without telling the devices."""
SHORTEST_REQUEUE_SECONDS = 0.5
ADOPTED = ("attempt", "stable", "candidate", "reach", "rollback")
"""What a signed document tells of a status, beside the quarantine."""


def decide(observed: Observed, delivery: Delivery, now: datetime) -> Decision:
    """The next step. Raises nothing: a rollout that cannot go on says so in its conditions."""
    if observed.rollout.metadata.deletion_timestamp:
        # What is signed last stays for good: nobody would be left to lift a freeze from it.
        return _farewell(Course(observed, replace(delivery, frozen=False), now))
    course = Course(observed, delivery, now)
    _adopt(course)
    take_back(course)
    _obey(course)
    attempts.take_up(course)
    had_candidate = course.status.candidate is not None
    judged = _go_on(course)
    if had_candidate and course.status.candidate is None:
        attempts.take_up(course)
    return _conclude(course, judged)


def _adopt(course: Course) -> None:
    """Take over what is signed when status says nothing, or less: the object was made anew, or restored from an older copy."""
    document = course.observed.document
    if document is None or not is_behind(course.status, document):
        return
    adopted = adopt(document, course.now, judging(course.spec))
    known = {one.digest for one in adopted.quarantined}
    held = tuple(one for one in course.status.quarantined if one.digest not in known)
    course.update(**{name: getattr(adopted, name) for name in ADOPTED}, previous=None, step=None, analysis=())
    course.update(quarantined=(*held, *adopted.quarantined)[-QUARANTINED:])
    course.tell(RolloutReason.ADOPTED, f"took over attempt {document.attempt} from the signed channel document")


def _obey(course: Course) -> None:
    command = commands.pending(course.rollout.metadata.annotations, course.status)
    if command is None:
        return
    ruling = commands.rule_on(command, course.status)
    if ruling.outcome == "Refused":
        course.tell(RolloutReason.COMMAND_REFUSED, ruling.message, warning=True)
    elif isinstance(command, Command):
        _carry_out(course, command)
    course.update(
        commands=commands.remember(course.status, command, ruling, course.now, vouched=course.observed.vouched).commands
    )


def _carry_out(course: Course, command: Command) -> None:
    who = command.who if course.observed.vouched else f"unverified:{command.who}"
    match command.verb:
        case Verb.APPROVE:
            steps.approve(course, who)
        case Verb.PROMOTE:
            attempts.complete(course, RolloutReason.PROMOTED, f"{course.candidate.name} was promoted by {who}")
        case Verb.ABORT:
            rollback.start(course, RolloutReason.ABORTED, f"{who}: {command.reason}".removesuffix(": "))
        case Verb.RETRY:
            attempts.retry(course, command.digest)
        case Verb.UNDO:  # pragma: no branch -- mypy proves that no member is left
            attempts.undo(course)


def _go_on(course: Course) -> Judged | None:
    if course.status.candidate is None:
        return None
    if course.is_going_back():
        rollback.go_on(course)
        return None
    if _has_lost_its_place(course):
        _resume(course)
    judged = steps.go_on(course)
    if course.is_going_back():
        rollback.go_on(course)
    course.wakeups.append(course.now + timedelta(seconds=course.spec.analysis.interval_seconds))
    return judged


def _has_lost_its_place(course: Course) -> bool:
    """Whether devices are meant, and the spec's steps are not (any more) those that led to that."""
    reach, step = course.status.reach, course.status.step
    if not (reach.cutoffs or reach.named) or course.observed.inventory is None:
        return False
    return step is None or step.plan not in (None, leading_to(course.spec.strategy.steps, step.index))


def _resume(course: Course) -> None:
    """Find the step that an adopted reach, or an edited spec, belongs to, and watch it anew."""
    index = step_at_work(course.spec.strategy.steps, course.status.reach, course.fleet(), course.salt())
    steps.begin_again(course, index or 0)
    if index is None:
        course.update_step(incomplete=True)


def _conclude(course: Course, judged: Judged | None) -> Decision:
    course.update(observed_generation=course.rollout.metadata.generation)
    course.update(conditions=conditions(course, judged))
    return Decision(
        status=course.status,
        document=rollback.document_of(course),
        events=tuple(course.events),
        requeue_after=_requeue_after(course),
    )


def _requeue_after(course: Course) -> float | None:
    if not course.wakeups:
        return None
    return max(SHORTEST_REQUEUE_SECONDS, (min(course.wakeups) - course.now).total_seconds())


def _farewell(course: Course) -> Decision:
    """A deleted rollout leaves its devices on stable: on what is signed as such, where status says nothing."""
    _adopt(course)
    status: EdgeRolloutStatus = course.status
    if status.candidate:
        gone = status.candidate.name
        attempts.end(course, "RolledBack", RolloutReason.DELETING)
        course.tell(RolloutReason.DELETING, f"devices are told to leave {gone} before the rollout goes")
    nothing_was_signed = is_empty(course.status) and not course.observed.repository_problem
    if rollback.is_published(course) or nothing_was_signed:
        return replace(_conclude(course, None), finished=True)
    left = FAREWELL_SECONDS - course.since(course.rollout.metadata.deletion_timestamp or course.stamp)
    if left <= 0:
        message = f"the channel document could not be signed within {FAREWELL_SECONDS} s"
        course.tell(RolloutReason.DELETION_GAVE_UP, message, warning=True)
        return replace(_conclude(course, None), finished=True)
    course.wakeups.append(
        parse_time(course.rollout.metadata.deletion_timestamp or course.stamp) + timedelta(seconds=FAREWELL_SECONDS)
    )
    course.wait(RolloutReason.DELETING, "stable is being published to all devices")
    return _conclude(course, None)
