"""What changed between two statuses: the events to record, and the attempts that are no longer needed."""

from dram_operator.api.status import DistillationJobStatus, Reason, StageState, StageStatus
from dram_operator.core.observed import AttemptView, JobEvent, Observed

GOOD_REASONS = frozenset({Reason.RUNNING, Reason.COMPLETED, Reason.CACHED})


def expired(before: Observed) -> tuple[str, ...]:
    """Finished attempts whose outcome stands in the status that the API server has: their Jobs may go."""
    status = before.job.status
    stages = {stage.id: stage for stage in status.stages}
    return tuple(
        view.name
        for view in before.attempts
        if view.finished and not view.expiring and not view.deleting and _is_recorded(view, status.run, stages)
    )


def _is_recorded(view: AttemptView, run: int, stages: dict[str, StageStatus]) -> bool:
    stage = stages.get(view.stage)
    if run == 0 or view.run > run:
        return False
    if view.run < run or stage is None or view.attempt < stage.attempt:
        return True
    return view.attempt == stage.attempt and stage.state is not StageState.RUNNING


def transitions(old: DistillationJobStatus, new: DistillationJobStatus) -> tuple[JobEvent, ...]:
    """One event a transition: of a stage, and of the summary condition."""
    known = {stage.id: stage for stage in old.stages} if old.run == new.run else {}
    events = [event for stage in new.stages if (event := _stage_event(known.get(stage.id), stage))]
    summary = _summary_event(old, new)
    return (*events, summary) if summary else tuple(events)


def _stage_event(before: StageStatus | None, stage: StageStatus) -> JobEvent | None:
    told = (before.state, before.reason, before.attempt) if before else (StageState.PENDING, None, stage.attempt)
    if told == (stage.state, stage.reason, stage.attempt) or stage.state is StageState.SKIPPED:
        return None
    warned = stage.state is StageState.SUCCEEDED and stage.message is not None
    bad = warned or stage.state is StageState.FAILED or (stage.reason is not None and stage.reason not in GOOD_REASONS)
    text = f"{stage.id} (attempt {stage.attempt}): {stage.message or stage.state.value}"
    reason = Reason.WARNED if warned else stage.reason or stage.state.value
    return JobEvent("Warning" if bad else "Normal", reason, text)


def _summary_event(old: DistillationJobStatus, new: DistillationJobStatus) -> JobEvent | None:
    before = next(iter(old.conditions), None)
    now = new.conditions[0]
    if now.status == "Unknown" or (before and (before.status, before.reason) == (now.status, now.reason)):
        return None
    return JobEvent("Normal" if now.status == "True" else "Warning", now.reason, now.message)
