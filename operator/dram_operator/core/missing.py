"""Which waiting stages are of no use any more, because something that they need came to nothing."""

from collections.abc import Collection, Mapping

from dram_operator.api.status import PlannedStage, StageState, StageStatus
from dram_workers.stages import StageKind


def missing(
    plan: tuple[PlannedStage, ...], stages: Mapping[str, StageStatus], required: Collection[str]
) -> dict[str, str]:
    """What each waiting stage that can no longer be done lacks: the name of another stage."""
    dead = tuple(name for name, stage in stages.items() if stage.state in (StageState.FAILED, StageState.SKIPPED))
    if not dead:
        return {}
    nodes = {node.id: node for node in plan}
    lost = next((name for name in dead if _serves_all(nodes[name], required)), None)
    waiting = (node for node in plan if stages[node.id].state is StageState.PENDING)
    found = {node.id: _lacks(node, nodes, dead) or lost for node in waiting}
    return {name: lacking for name, lacking in found.items() if lacking}


def _serves_all(node: PlannedStage, required: Collection[str]) -> bool:
    """Whether nothing can be released without this stage; training is not begun for less than what is required."""
    return node.variant is None or (node.kind is StageKind.PREFLIGHT and node.variant in required)


def _lacks(node: PlannedStage, nodes: Mapping[str, PlannedStage], dead: tuple[str, ...]) -> str | None:
    needed = {source.stage for source in node.inputs.values() if _needs(node, nodes[source.stage])}
    if node.after and set(node.after) <= set(dead):
        return node.after[0]
    return next((name for name in dead if name in needed), None)


def _needs(node: PlannedStage, source: PlannedStage) -> bool:
    """Publish goes on without a variant that failed; everything else needs all its inputs."""
    return node.kind is not StageKind.PUBLISH or source.variant is None
