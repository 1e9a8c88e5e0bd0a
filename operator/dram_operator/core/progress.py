"""What people see of a running job: stage, percent, ETA. Never decides anything."""

from datetime import datetime, timedelta

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.status import CheckpointStatus, DistillationJobStatus, ProgressStatus, StageState
from dram_operator.core.configs import storage_of
from dram_operator.core.installation import Installation
from dram_operator.core.observed import ProgressView
from dram_operator.core.times import parse_time, stamp
from dram_workers.stages import StageKind

WRITE_EVERY_SECONDS = 15
"""Progress alone changes status at most this often."""

WEIGHTS: dict[StageKind, int] = {
    StageKind.RESOLVE: 1,
    StageKind.PREFLIGHT: 3,
    StageKind.SYNTHESIZE: 15,
    StageKind.DATA: 1,
    StageKind.TEACH: 20,
    StageKind.TRAIN: 50,
    StageKind.EXPORT: 2,
    StageKind.EVALUATE: 5,
    StageKind.BENCH: 5,
    StageKind.PUBLISH: 1,
}
"""Rough share of a job's time by kind of stage, for the percentage."""


def with_progress(
    status: DistillationJobStatus,
    job: DistillationJob,
    view: ProgressView | None,
    installation: Installation,
    now: datetime,
) -> DistillationJobStatus:
    """The status with its stage column and progress; a young progress of the same stage is left as it is."""
    running = [stage for stage in status.stages if stage.state is StageState.RUNNING]
    column = running[0].id if running else ("Done" if status.finished_at else "Waiting")
    report = (
        view if view and any(s.id == view.latest.stage and s.attempt == view.latest.attempt for s in running) else None
    )
    percent = _percent(status, report)
    old = status.progress
    stage_id = report.latest.stage if report else column
    step = report.latest.step if report else 0
    # A stage that ends its reports keeps what they said.
    told = bool(old and old.stage == stage_id and old.percent == percent and (report is None or old.step == step))
    young = bool(
        old and old.stage == stage_id and now - parse_time(old.updated_at) < timedelta(seconds=WRITE_EVERY_SECONDS)
    )
    progress = old
    if not young and not told:
        progress = ProgressStatus(
            stage=stage_id,
            step=step,
            total_steps=report.latest.total_steps if report else 0,
            percent=percent,
            eta_seconds=eta_seconds(report) if report else None,
            loss=report.latest.metrics.get("loss") if report else None,
            # The time of this write, not of the report: a report may have waited for its turn.
            updated_at=stamp(now),
        )
    update: dict[str, object] = {"stage": column, "progress": progress}
    if report and progress is not old:
        update |= {"checkpoint": _checkpoint(status, job, report, installation) or status.checkpoint}
    return status.model_copy(update=update)


def _percent(status: DistillationJobStatus, report: ProgressView | None) -> int:
    kinds = {node.id: node.kind for node in (status.plan.stages if status.plan else ())}
    total = sum(WEIGHTS[kind] for kind in kinds.values())
    ended = (StageState.SUCCEEDED, StageState.FAILED, StageState.SKIPPED)
    done = float(sum(WEIGHTS[kinds[stage.id]] for stage in status.stages if stage.state in ended))
    if report and report.latest.total_steps > 0:
        done += WEIGHTS[kinds[report.latest.stage]] * min(1.0, report.latest.step / report.latest.total_steps)
    return int(100 * done / total)


def eta_seconds(report: ProgressView) -> int | None:
    """Seconds to the stage's end at the mean rate of this attempt; None before there is a rate."""
    steps = report.latest.step - report.first_step
    seconds = (report.latest_at - report.first_at).total_seconds()
    left = report.latest.total_steps - report.latest.step
    return round(seconds / steps * left) if steps > 0 and seconds > 0 and left >= 0 else None


def _checkpoint(
    status: DistillationJobStatus, job: DistillationJob, report: ProgressView, installation: Installation
) -> CheckpointStatus | None:
    step = report.latest.metrics.get("checkpointStep")
    key = next((stage.key for stage in status.stages if stage.id == report.latest.stage), None)
    storage = storage_of(job, installation)
    if step is None or key is None or storage is None:
        return None
    return CheckpointStatus(step=int(step), uri=f"{storage.uri.rstrip('/')}/checkpoints/{key}/{int(step)}")
