"""The story of an EdgeRollout."""

from datetime import datetime

from rich.table import Table
from rich.tree import Tree

from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_reasons import RolloutCondition
from dram_operator.api.rollout_spec import DEFAULT_BAKE_SECONDS, Step
from dram_operator.api.rollout_status import (
    CommandStatus,
    EdgeRolloutStatus,
    MetricStatus,
    ReleaseStatus,
    RolloutConditionStatus,
    StepState,
    StepStatus,
)
from dram_operator.core.times import parse_time
from dram_operator.show.words import age, ago, bar, chapter, duration, mark, said, short, story, told

LOOKS_SHOWN = 20
NOTABLE = {
    RolloutCondition.ARTIFACT_READY: "False",
    RolloutCondition.PUBLISHED: "False",
    RolloutCondition.ANALYSED: "False",
    RolloutCondition.STEP_TOO_SMALL_TO_JUDGE: "True",
    RolloutCondition.ROLLBACK_BLOCKED: "True",
}
"""Conditions that are told when they stand like this."""


def rollout_story(rollout: EdgeRollout, now: datetime) -> Tree:
    """All that a rollout's status tells, as a tree."""
    status = rollout.status
    tree = story(heading(rollout))
    for line in _notable(status):
        tree.add(said(line))
    chapter(tree, "releases", _releases(status, now))
    chapter(tree, _attempt(status), _steps(rollout, now))
    if status.analysis:
        tree.add(metrics_table(status))
    chapter(tree, "rollback", _rollback(status, now))
    chapter(
        tree,
        "quarantine",
        [f"✗ {short(one.digest)}  {one.reason}, {ago(one.since, now)}" for one in status.quarantined],
    )
    chapter(tree, "commands", [command_line(one, now) for one in reversed(status.commands)])
    chapter(tree, "history", _history(status, now))
    return tree


def heading(rollout: EdgeRollout) -> str:
    """The rollout in one line."""
    ready = condition(rollout.status, RolloutCondition.READY)
    if ready is None:
        return f"… EdgeRollout {rollout.channel}: no operator has looked at it yet"
    stalled = condition(rollout.status, RolloutCondition.STALLED)
    waits = ready.status == "False" and (stalled is None or stalled.status != "True")
    return f"{'…' if waits else mark(ready.status)} EdgeRollout {rollout.channel}: {told(ready.reason, ready.message)}"


def condition(status: EdgeRolloutStatus, wanted: RolloutCondition) -> RolloutConditionStatus | None:
    """A condition of the status."""
    return next((found for found in status.conditions if found.type is wanted), None)


def metrics_table(status: EdgeRolloutStatus) -> Table:
    """The metrics, one a row: what was measured against its limit, and the latest looks."""
    table = Table("metric", "verdict", "value", "limit", "difference", "samples", "looks")
    table.add_column("in words", overflow="fold")
    for metric in status.analysis:
        table.add_row(*map(said, _metric_cells(metric)))
    return table


def command_line(command: CommandStatus, now: datetime) -> str:
    """A command that was handled, in one line."""
    sign = "✓" if command.outcome == "Applied" else "✗"
    reason = f" “{command.reason}”" if command.reason else ""
    about = f"{command.verb or 'unreadable'} by {command.who}, {ago(command.handled_at, now)}{reason}"
    return f"{sign} {told(about, command.outcome if command.message else None, command.message)}"


def devices_lines(step: StepStatus) -> list[str]:
    """The devices of the step at work."""
    devices = step.devices
    counted = {"healthy": devices.healthy, "reporting": devices.reporting}
    lines = [
        f"{name:<10}{bar(count, devices.expected)} {count} of {devices.expected} expected"
        for name, count in counted.items()
    ]
    bad = {"failed": devices.failed, "offline": devices.offline}
    return lines + [f"{'✗' if name == 'failed' else '!'} {count} {name}" for name, count in bad.items() if count]


def _notable(status: EdgeRolloutStatus) -> list[str]:
    found = [one for one in status.conditions if NOTABLE.get(one.type) == one.status]
    return [f"! {one.type}: {told(one.reason, one.message)}" for one in found]


def _releases(status: EdgeRolloutStatus, now: datetime) -> list[str]:
    known = {"candidate": status.candidate, "stable": status.stable, "previous": status.previous}
    lines = [_release(kind, release, now) for kind, release in known.items() if release]
    return lines or ["· none: devices run no local model"]


def _release(kind: str, release: ReleaseStatus, now: datetime) -> str:
    return f"{kind:<10}{release.name}  {short(release.release.digest)}  for {age(release.since, now)}"


def _attempt(status: EdgeRolloutStatus) -> str:
    step = status.step
    if step is None:
        return f"attempt {status.attempt}"
    about = "about " if step.approximate else ""
    return f"attempt {status.attempt}, step {step.shown}, {about}{step.percent} % of {step.devices.known} devices"


def _steps(rollout: EdgeRollout, now: datetime) -> list[str]:
    """The steps of the spec, and the devices of the one at work; without an attempt none of them says anything."""
    at_work = rollout.status.step
    if at_work is None:
        return []
    lines = []
    for index, step in enumerate(rollout.spec.strategy.steps):
        line = f"{index + 1}  {_cohort(step)}"
        if index < at_work.index:
            lines.append(f"✓ {line}")
        elif index > at_work.index:
            lines.append(f"· {line}")
        else:
            lines += [_at_work(line, step, at_work, now), *(f"    {devices}" for devices in devices_lines(at_work))]
    return lines


def _at_work(line: str, step: Step, status: StepStatus, now: datetime) -> str:
    match status.state:
        case StepState.UPDATING:
            return f"… {line}: updating for {age(status.started_at, now)}"
        case StepState.BAKING:
            return f"… {line}: baking {_bake(step, status, now)}"
        case StepState.AWAITING_APPROVAL:
            return f"? {line}: {told('waits for approval', status.asked)}"
        case StepState.PASSED:
            by = f", approved by {status.approved_by}" if status.approved_by else ""
            return f"✓ {line}: passed{by}"


def _bake(step: Step, status: StepStatus, now: datetime) -> str:
    whole = DEFAULT_BAKE_SECONDS if step.bake_seconds is None else step.bake_seconds
    done = (now - parse_time(status.bake_started_at)).total_seconds() if status.bake_started_at else 0.0
    if done >= whole:
        return f"for {duration(done)}: the bake of {duration(whole)} is over, evidence is not"
    return f"{bar(done, whole)} {duration(done)} of {duration(whole)}"


def _cohort(step: Step) -> str:
    if step.cohort is None:
        return "pause"
    cohort = step.cohort
    parts = [f"{len(cohort.device_ids)} named devices"] if cohort.device_ids else []
    if cohort.percent:
        chosen = cohort.selector.match_labels if cohort.selector else {}
        of = "".join(f" {name}={value}" for name, value in chosen.items())
        parts.append(f"{cohort.percent}{f' of{of}' if of else ''}")
    return " and ".join(parts)


def _metric_cells(metric: MetricStatus) -> list[str]:
    sign = {"Pass": "✓", "Breach": "✗"}.get(metric.verdict, "!")
    difference = ""
    if metric.lower is not None and metric.upper is not None:
        difference = f"{metric.lower:.4g} to {metric.upper:.4g}"
    return [
        metric.name + (" (dry run)" if metric.dry_run else ""),
        f"{sign} {metric.verdict}",
        "" if metric.value is None else f"{metric.value:.4g}",
        "" if metric.limit is None else f"{metric.limit:.4g}",
        difference,
        str(metric.samples),
        metric.looks[-LOOKS_SHOWN:],
        metric.message,
    ]


def _rollback(status: EdgeRolloutStatus, now: datetime) -> list[str]:
    rollback = status.rollback
    if rollback is None:
        return []
    line = f"↩ {short(rollback.digest)}  {told(rollback.reason, rollback.message)}"
    if rollback.completed_at:
        return [line, f"✓ devices were back {ago(rollback.completed_at, now)}"]
    return [
        line,
        f"… {bar(rollback.percent, 100)} {rollback.percent} % told to go back, {rollback.remaining} still on it",
    ]


def _history(status: EdgeRolloutStatus, now: datetime) -> list[str]:
    signs = {"Completed": "✓", "RolledBack": "↩", "Superseded": "-"}
    return [
        f"{signs[one.outcome]} attempt {one.attempt}  {one.name}  {one.outcome}: {one.reason}, {ago(one.finished_at, now)}"
        for one in reversed(status.history)
    ]
