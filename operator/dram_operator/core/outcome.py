"""How a run ends, and how long it was active."""

from collections.abc import Iterable
from datetime import datetime

from dram_operator.api.status import DistillationJobStatus, PlannedStage, Reason, StageState, StageStatus
from dram_operator.core.conditions import Finding, gate_reason
from dram_operator.core.times import parse_time, stamp
from dram_operator.core.variants import TERMINAL
from dram_workers.results import GateRow


def is_over(stages: Iterable[StageStatus]) -> bool:
    """Whether nothing is left to do."""
    return all(stage.state in TERMINAL for stage in stages)


def outcome(status: DistillationJobStatus, nodes: dict[str, PlannedStage], required: frozenset[str]) -> Finding | None:
    """What `Succeeded` tells at the end; None while there is work left. Needs at least one releasable variant."""
    if not is_over(status.stages):
        return None
    for stage in status.stages:
        variant = nodes[stage.id].variant
        if stage.state is StageState.FAILED and (variant is None or variant in required):
            return Finding("False", stage.reason or Reason.NOT_REACHED, f"{stage.id}: {stage.message or ''}")
    good = {variant.name for variant in status.variants if variant.gate in ("Pass", "Warn")}
    if good and required <= good:
        return Finding("True", Reason.COMPLETED, f"{len(good)} of {len(status.variants)} variants may be released")
    return _failed_gate(status, required)


def _failed_gate(status: DistillationJobStatus, required: frozenset[str]) -> Finding:
    rows = [row for row in status.gates if not required or row.variant in required]
    failing: GateRow | None = next((row for row in rows if row.verdict not in ("Pass", "Warn")), None)
    if failing is None:
        return Finding("False", Reason.GATE_FAILED, "no variant reached its gates: see the failed stages")
    return Finding("False", gate_reason(failing), f"{failing.variant}: {failing.gate}: {failing.message}")


def active_seconds(status: DistillationJobStatus, now: datetime) -> int:
    """Seconds that the run was active so far; suspension does not count."""
    since = status.active_since
    return status.active_seconds + (int((now - parse_time(since)).total_seconds()) if since else 0)


def with_active_clock(status: DistillationJobStatus, *, going: bool, now: datetime) -> DistillationJobStatus:
    """The status with its active clock started or stopped."""
    if going and not status.active_since:
        return status.model_copy(update={"active_since": stamp(now)})
    if not going and status.active_since:
        return status.model_copy(update={"active_seconds": active_seconds(status, now), "active_since": None})
    return status
