"""What the figures of an untrained student mean: only what is certain to miss a limit fails."""

from dram_operator.api.distillation_job import DistillationJobSpec
from dram_operator.api.spec import Export, Gates
from dram_operator.api.status import PlannedStage, Reason, StageState, StageStatus
from dram_operator.core.gates import Evidence, decide_gates
from dram_workers.results import GateRow
from dram_workers.stages import StageKind

LONGEST_MESSAGE = 1000


def judged(stage: StageStatus, node: PlannedStage, spec: DistillationJobSpec) -> StageStatus:
    """The stage, failed when it is a preflight that ended well with figures that cannot pass the gates."""
    if node.kind is not StageKind.PREFLIGHT or stage.state is not StageState.SUCCEEDED:
        return stage
    export = next(export for export in spec.exports if export.name == node.variant)
    missed = missed_gates(stage, export, spec.gates)
    if not missed:
        return stage
    message = "; ".join(f"before any training, {row.gate}: {row.message}" for row in missed)
    update = {"state": StageState.FAILED, "reason": Reason.PREFLIGHT_FAILED, "message": message[:LONGEST_MESSAGE]}
    return stage.model_copy(update=update)


def missed_gates(stage: StageStatus, export: Export, gates: Gates) -> tuple[GateRow, ...]:
    """The gates that the figures miss with certainty; a limit inside the interval is left to the trained student."""
    if stage.result is None:
        return ()
    measures = {measure.name: measure for measure in stage.result.measures}
    rows = decide_gates(gates, Evidence(variant=export.name, gguf=export.gguf.type, measures=measures))
    return tuple(row.model_copy(update={"stage": "Preflight"}) for row in rows if row.verdict == "Fail")
