"""The steps of an attempt: a step passes when bake, evidence, samples and every metric say so, and never by the clock alone."""

from datetime import timedelta

from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.rollout_spec import DEFAULT_BAKE_SECONDS
from dram_operator.api.rollout_status import DeviceCounts, StepState, StepStatus
from dram_operator.core.rollout import rollback
from dram_operator.core.rollout.analysis import Judged, judge
from dram_operator.core.rollout.attempts import complete
from dram_operator.core.rollout.cohort import EXACT_DEVICES, percent_of, widen
from dram_operator.core.rollout.course import Course
from dram_operator.core.rollout.edits import leading_to
from dram_operator.core.rollout.evidence import Evidence, weigh
from dram_operator.core.times import parse_time

WITHOUT_DATA = (RolloutReason.METRIC_ERROR, RolloutReason.METRIC_MISSING)
"""Questions to a person that new data answers: an approval never stands for data."""
WAITING_METRICS = {
    "Breach": RolloutReason.METRIC_BREACHED,
    "Inconclusive": RolloutReason.METRIC_INCONCLUSIVE,
    "Error": RolloutReason.METRIC_ERROR,
    "Missing": RolloutReason.METRIC_MISSING,
}


def go_on(course: Course) -> Judged | None:
    """Look at the step at work in every state of it; withdraw the candidate, or move on."""
    if course.status.step is None:
        _start(course, 0)
        return None
    if course.planned.cohort is None and course.step.index == 0:
        return _move(course, Judged(()), None)
    course.update_step(shown=_shown(course, course.step.index))
    evidence = _count(course)
    judged = judge(course, bake_is_over=_bake_is_over(course))
    course.update(analysis=judged.metrics, gate=_gate(judged))
    breach = _breach(course, judged, evidence)
    if breach and course.spec.rollback.automatic:
        rollback.start(course, *breach)
        return judged
    if breach and not (course.step.approved_by and course.step.asked == breach[0]):
        _ask(course, *breach, warning=True)
        return judged
    return _move(course, judged, evidence)


def _count(course: Course) -> Evidence | None:
    """None while nobody can tell: device counts are kept as they were then."""
    counts = course.counts()
    if counts is None:
        return None
    course.update_step(devices=counts)
    return weigh(counts, course.spec.strategy.min_devices)


def _breach(course: Course, judged: Judged, evidence: Evidence | None) -> tuple[RolloutReason, str] | None:
    if judged.rollback:
        return RolloutReason.METRIC_BREACHED, judged.rollback[1]
    if evidence is None:
        return None
    if evidence.too_many_failed:
        devices = course.step.devices
        return RolloutReason.DEVICES_FAILED, f"{devices.failed} of {devices.expected} devices failed"
    if course.spec.strategy.on_step_deadline == "Rollback" and _is_late(course):
        return RolloutReason.STEP_DEADLINE_EXCEEDED, _late(course)
    return None


def _move(course: Course, judged: Judged, evidence: Evidence | None) -> Judged:
    _clock(course, is_seen=evidence is not None)
    if course.step.state is StepState.UPDATING and evidence and evidence.enough:
        course.update_step(state=StepState.BAKING, bake_started_at=course.stamp)
        course.tell(
            RolloutReason.BAKING, f"step {course.step.shown}: its devices are watched for {_bake_seconds(course)} s"
        )
    if course.step.state in (StepState.UPDATING, StepState.BAKING):
        _weigh(course, judged, evidence)
    if course.step.state is StepState.AWAITING_APPROVAL:
        why = "" if course.step.asked in (None, RolloutReason.AWAITING_APPROVAL) else f" ({course.step.asked})"
        course.wait(
            RolloutReason.AWAITING_APPROVAL, f"step {course.step.shown}{why}: `kubectl dram rollout approve` goes on"
        )
    if course.step.state is StepState.PASSED and course.may_move() and course.knows_devices():
        if _is_still_good(course, judged, evidence):
            _next(course)
        else:
            course.update_step(state=StepState.BAKING)
            _weigh(course, judged, evidence)
    return judged


def _is_still_good(course: Course, judged: Judged, evidence: Evidence | None) -> bool:
    """Whether what a step passed by holds at the moment of moving: windows, pauses and freezes last for hours.

    What a person was shown and let pass is passed; that a step is small says nothing of its data.
    """
    waived = course.step.approved_by and course.step.asked != RolloutReason.AWAITING_APPROVAL
    if course.planned.cohort is None or waived:
        return True
    return evidence is not None and evidence.enough and not judged.waiting


def _weigh(course: Course, judged: Judged, evidence: Evidence | None) -> None:
    """Whether a step that is at work has passed, has to be shown to people, or goes on."""
    if judged.pause:
        metric, why = judged.pause
        _ask(course, WAITING_METRICS.get(metric.verdict, RolloutReason.AWAITING_APPROVAL), why)
    elif _is_late(course):
        _ask(course, RolloutReason.STEP_DEADLINE_EXCEEDED, _late(course), warning=True)
    elif course.step.state is StepState.UPDATING:
        devices = course.step.devices
        reason = RolloutReason.PROGRESSING if devices.expected else RolloutReason.NO_DEVICES
        course.wait(reason, f"step {course.step.shown}: {devices.healthy} of {devices.expected} devices are well")
    elif not _bake_is_over(course):
        watching = course.step.index == len(course.spec.strategy.steps) - 1
        until = parse_time(course.step.bake_started_at or course.stamp) + timedelta(seconds=_bake_seconds(course))
        course.wait(RolloutReason.WATCHING if watching else RolloutReason.BAKING, f"step {course.step.shown}", until)
    elif evidence is None or not evidence.enough:
        needed = evidence.needed if evidence else 0
        devices = course.step.devices
        message = f"step {course.step.shown}: {devices.healthy} of the {max(needed, 1)} devices needed are well"
        course.wait(RolloutReason.AWAITING_EVIDENCE, message)
    elif judged.waiting:
        course.wait(RolloutReason.AWAITING_EVIDENCE, judged.waiting)
    elif evidence.needs_approval and not course.step.approved_by:
        _ask(course, RolloutReason.AWAITING_APPROVAL, f"it has fewer devices than {course.spec.strategy.min_devices}")
    else:
        _pass(course)


def _pass(course: Course) -> None:
    course.update_step(state=StepState.PASSED)
    course.tell(
        RolloutReason.STEP_PASSED, f"step {course.step.shown} passed with {course.step.devices.healthy} devices"
    )


def approve(course: Course, who: str) -> None:
    """A person lets the step go on: past what was asked, or, where telemetry was missing, to where it was."""
    if course.step.asked in WITHOUT_DATA:
        course.update(
            analysis=tuple(one.model_copy(update={"errors": 0, "missing": 0}) for one in course.status.analysis)
        )
        course.update_step(state=StepState.BAKING if course.step.bake_started_at else StepState.UPDATING)
    else:
        course.update_step(state=StepState.PASSED, approved_by=who)
    course.tell(RolloutReason.APPROVED, f"step {course.step.shown} was approved by {who}")


def _ask(course: Course, reason: RolloutReason, message: str, *, warning: bool = False) -> None:
    """Stop until a person has looked."""
    course.wait(reason, message)
    if (course.step.state, course.step.asked) != (StepState.AWAITING_APPROVAL, reason):
        course.update_step(state=StepState.AWAITING_APPROVAL, asked=reason.value, approved_by=None)
        course.tell(reason, f"step {course.step.shown} waits for a person: {message}", warning=warning)


def _next(course: Course) -> None:
    index = 0 if course.step.incomplete else course.step.index + 1
    if index < len(course.spec.strategy.steps):
        _start(course, index)
        return
    complete(course, RolloutReason.COMPLETED, f"{course.candidate.name} is stable")


def _start(course: Course, index: int) -> None:
    if not course.may_move() or not course.knows_devices():
        return
    step = course.spec.strategy.steps[index]
    if step.cohort is None:
        before = course.status.step or _blank(course, index)
        kept = {name: getattr(before, name) for name in ("percent", "devices", "treated", "control", "cutoff")}
        course.update(step=_blank(course, index).model_copy(update=kept))
        _ask(course, RolloutReason.AWAITING_APPROVAL, "it is a pause")
        return
    widened = widen(course.status.reach, step.cohort, course.fleet(), course.salt())
    course.update(reach=widened.reach)
    begin_again(course, index, cutoff=widened.cutoff, approximate=widened.approximate)
    why = "devices are only counted" if course.inventory.groups else f"there are more than {EXACT_DEVICES}"
    how = f", a share of all hashes as {why}" if widened.approximate else ""
    told = f"step {course.step.shown}: {course.step.treated} devices are meant to run {course.candidate.name}{how}"
    course.tell(RolloutReason.STEP_STARTED, told)
    course.wait(RolloutReason.PROGRESSING, told)


def begin_again(course: Course, index: int, *, cutoff: str | None = None, approximate: bool = False) -> None:
    """Watch a step's devices from now on; the reach is as it is."""
    course.update(step=_blank(course, index), analysis=(), gate="Waiting")
    sizes = course.sizes()
    course.update_step(
        percent=percent_of(course.status.reach, course.fleet()),
        cutoff=cutoff,
        approximate=approximate,
        treated=sizes.treated,
        control=sizes.control,
        active_since=course.stamp,
        devices=course.counts() or DeviceCounts(known=course.inventory.known),
    )


def _blank(course: Course, index: int) -> StepStatus:
    plan = leading_to(course.spec.strategy.steps, index)
    return StepStatus(
        index=index, shown=_shown(course, index), state=StepState.UPDATING, started_at=course.stamp, plan=plan
    )


def _shown(course: Course, index: int) -> str:
    return f"{index + 1}/{len(course.spec.strategy.steps)}"


def _bake_seconds(course: Course) -> int:
    asked = course.planned.bake_seconds
    return DEFAULT_BAKE_SECONDS if asked is None else asked


def _bake_is_over(course: Course) -> bool:
    begun = course.step.bake_started_at
    return begun is not None and course.since(begun) >= _bake_seconds(course)


def _clock(course: Course, *, is_seen: bool) -> None:
    """Run the deadline's clock while the step could move: not while it bakes, waits for people, or for a window.

    Nor while nobody sees it: after an outage, also one of the operator, devices may have long been ready.
    """
    working = course.step.state is StepState.UPDATING or (
        course.step.state is StepState.BAKING and _bake_is_over(course)
    )
    waits, runs = course.waits_for, working and is_seen and course.may_move()
    course.waits_for = waits
    if runs and course.step.active_since is None:
        course.update_step(active_since=course.stamp)
    elif not runs and course.step.active_since is not None:
        until = course.stamp if is_seen else _seen_until(course, course.step.active_since)
        course.update_step(active_seconds=_active_seconds(course, until), active_since=None)
    if runs:
        left = course.spec.strategy.step_deadline_seconds - _active_seconds(course, course.stamp)
        course.wakeups.append(course.now + timedelta(seconds=max(left, 0)))


def _seen_until(course: Course, since: str) -> str:
    """When the step was looked at last, as far as status tells."""
    return max([since, *(one.looked_at for one in course.status.analysis)])


def _active_seconds(course: Course, until: str) -> int:
    since, so_far = course.step.active_since, course.step.active_seconds
    return so_far + (max(0, int((parse_time(until) - parse_time(since)).total_seconds())) if since else 0)


def _is_late(course: Course) -> bool:
    return _active_seconds(course, course.stamp) >= course.spec.strategy.step_deadline_seconds


def _late(course: Course) -> str:
    devices, limit = course.step.devices, course.spec.strategy.step_deadline_seconds
    return f"step {course.step.shown} took {limit} s with {devices.healthy} of {devices.expected} devices well"


def _gate(judged: Judged) -> str:
    if judged.rollback:
        return judged.rollback[0]
    return "Waiting" if judged.waiting else "Pass"
