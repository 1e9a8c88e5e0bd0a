"""Stages that are done again because a later one found their result gone."""

from dram_operator.api.status import PlannedStage, StageState, StageStatus
from dram_workers.errors import WorkerReason
from dram_workers.stages import StageKind


def to_do_again(
    stage: StageStatus, node: PlannedStage, nodes: dict[str, PlannedStage], stages: dict[str, StageStatus]
) -> dict[str, StageStatus]:
    """Where training has just found logits gone or damaged: the stage that writes them, waiting to write them again.

    Training's own attempts are counted as ever, so a store that loses what it is given ends the job.
    """
    if stage.state is not StageState.PENDING or stage.reason != WorkerReason.PART_LOST:
        return {}
    makers = {source.stage for source in node.inputs.values() if nodes[source.stage].kind is StageKind.TEACH}
    update = {"state": StageState.PENDING, "reason": stage.reason, "message": stage.message}
    update |= {"result": None, "retry_at": None, "finished_at": None}
    return {name: stages[name].model_copy(update=update) for name in makers}
