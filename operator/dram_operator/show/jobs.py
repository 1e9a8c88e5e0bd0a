"""The story of a DistillationJob."""

from collections.abc import Iterable
from datetime import datetime

from rich.console import RenderableType
from rich.table import Table
from rich.tree import Tree

from dram_operator.api.distillation_job import DistillationJob
from dram_operator.api.status import (
    Condition,
    ConditionType,
    DistillationJobStatus,
    ProgressStatus,
    Reason,
    StageState,
    StageStatus,
    VariantStatus,
)
from dram_operator.core.times import parse_time
from dram_operator.show.words import ago, bar, chapter, clock, duration, mark, said, story, told

MIB = 1024 * 1024


def job_story(job: DistillationJob, now: datetime) -> Tree:
    """All that a job's status tells, as a tree."""
    status = job.status
    tree = story(heading(job))
    for fact in _facts(status, now):
        tree.add(said(fact))
    chapter(tree, "stages", [stage_line(stage, status.progress) for stage in status.stages])
    chapter(tree, "gates", _gates(status))
    if status.variants:
        tree.add(variants_table(status))
    chapter(tree, "results", _results(status))
    return tree


def heading(job: DistillationJob) -> str:
    """The job in one line."""
    summary, name = summary_of(job.status), f"{job.metadata.namespace}/{job.metadata.name}"
    if summary is None:
        return f"… DistillationJob {name}: no operator has looked at it yet"
    return f"{mark(summary.status)} DistillationJob {name}: {told(summary.reason, summary.message)}"


def summary_of(status: DistillationJobStatus) -> Condition | None:
    """The condition that sums the job up; None before the first visit."""
    return next((found for found in status.conditions if found.type is ConditionType.SUCCEEDED), None)


def jobs_table(jobs: Iterable[DistillationJob], now: datetime, *, namespaces: bool) -> Table:
    """Jobs, one a row."""
    table = Table(*(["namespace"] if namespaces else []), "job", "status", "stage", "progress", "left", box=None)
    for title in ("score", "gate", "started"):
        table.add_column(title)
    for job in jobs:
        status, summary = job.status, summary_of(job.status)
        progress = None if status.finished_at else status.progress
        percent = 100 if summary and summary.status == "True" else progress.percent if progress else None
        cells = [
            job.metadata.name,
            summary.reason if summary else "",
            status.stage or "",
            "" if percent is None else f"{bar(percent, 100)} {percent} %",
            clock(progress.eta_seconds) if progress and progress.eta_seconds else "",
            status.best_score or "",
            status.gate or "",
            ago(status.started_at, now) if status.started_at else "",
        ]
        table.add_row(*map(said, [job.metadata.namespace, *cells] if namespaces else cells))
    return table


def stage_line(stage: StageStatus, progress: ProgressStatus | None = None) -> str:
    """A stage in one line; the one at work with a bar, where it reports progress."""
    match stage.state:
        case StageState.RUNNING:
            return f"… {_running(stage, progress)}"
        case StageState.SUCCEEDED:
            took = "cached" if stage.reason == Reason.CACHED else f"{_seconds(stage)} s"
            return f"✓ {stage.id} ({took})" + (f"; warning: {stage.message}" if stage.message else "")
        case StageState.PENDING if stage.retry_at:
            return f"↻ {stage.id}: {stage.reason}: {stage.message}; tried again at {stage.retry_at}"
        case StageState.PENDING:
            return f"· {told(stage.id, stage.reason, stage.message)}"
        case StageState.FAILED:
            return f"✗ {stage.id}: {stage.reason}: {stage.message}"
        case StageState.SKIPPED:
            return f"- {stage.id}: {stage.message}"


def progress_words(loss: float | None, eta: int | None) -> str:
    """Loss and remaining time, as far as they are known."""
    parts = [f"loss {loss:.3f}"] if loss is not None else []
    parts += [f"about {clock(eta)} left"] if eta else []
    return ", ".join(parts)


def variants_table(status: DistillationJobStatus) -> Table:
    """The variants, one a row."""
    table = Table("variant", "size", "golden score", "pass rate", "tokens/s")
    table.add_column("gates", overflow="fold")
    for variant in status.variants:
        table.add_row(*map(said, _cells(variant)), _verdict(variant, status))
    return table


def _facts(status: DistillationJobStatus, now: datetime) -> list[str]:
    if not status.started_at:
        return []
    started = f"run {status.run}, started {ago(status.started_at, now)}"
    if status.finished_at:
        took = (parse_time(status.finished_at) - parse_time(status.started_at)).total_seconds()
        return [f"{started}, finished {ago(status.finished_at, now)} after {duration(took)}"]
    percent = status.progress.percent if status.progress else None
    return [started] + ([] if percent is None else [f"all of it  {bar(percent, 100)} {percent} %"])


def _running(stage: StageStatus, progress: ProgressStatus | None) -> str:
    if progress and progress.stage == stage.id:
        return f"{stage.id}  {_progress(progress)}"
    return told(stage.id, stage.reason, stage.message) if stage.message else stage.id


def _progress(progress: ProgressStatus) -> str:
    words = progress_words(progress.loss, progress.eta_seconds)
    if not progress.total_steps:
        return told(f"step {progress.step}" if progress.step else "at work", words)
    steps = f"{bar(progress.step, progress.total_steps)} {progress.step} of {progress.total_steps}"
    return f"{steps}, {words}" if words else steps


def _gates(status: DistillationJobStatus) -> list[str]:
    """What passed as a number, and what did not with its remedy."""
    passed = [row for row in status.gates if row.verdict == "Pass"]
    lines = [f"✓ {len(passed)} passed"] if passed else []
    for row in status.gates:
        if row.verdict != "Pass":
            sign = "!" if row.verdict == "Warn" else "✗"
            lines.append(f"{sign} {row.variant}: {row.gate}: {row.verdict}: {row.message}")
    return lines


def _results(status: DistillationJobStatus) -> list[str]:
    best = f" ({status.best_score})" if status.best_score else ""
    lines = [f"best        {status.best}{best}"] if status.best else []
    lines += [f"{variant.name}  {variant.uri}" for variant in status.variants if variant.uri]
    if status.checkpoint and not status.finished_at:
        lines.append(f"checkpoint  step {status.checkpoint.step}, {status.checkpoint.uri}")
    return lines + ([f"report      {status.report_uri}"] if status.report_uri else [])


def _cells(variant: VariantStatus) -> list[str]:
    def score(name: str, form: str) -> str:
        value = variant.scores.get(name)
        return "" if value is None else format(value, form)

    size = "" if variant.size_bytes is None else f"{variant.size_bytes / MIB:.0f} MiB"
    return [
        variant.name, size, score("goldenScore", ".3f"), score("goldenPassRate", ".2f"), score("tokensPerSecond", ".0f")
    ]  # fmt: skip


def _verdict(variant: VariantStatus, status: DistillationJobStatus) -> RenderableType:
    failing = [
        f"{row.verdict}: {row.gate}" for row in status.gates if row.variant == variant.name and row.verdict != "Pass"
    ]
    return said("; ".join(failing) or variant.gate)


def _seconds(stage: StageStatus) -> int:
    if not stage.started_at or not stage.finished_at:
        return 0
    return int((parse_time(stage.finished_at) - parse_time(stage.started_at)).total_seconds())
