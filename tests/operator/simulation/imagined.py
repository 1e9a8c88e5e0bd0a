"""Builders of simulations: `simulated(a_policy(), a_group(faults=[…]))`."""

from typing import Any

from dram_agent.fleet.scenario import Scenario
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.offline import check, with_defaults
from dram_operator.simulation.simulation import Simulation
from dram_operator.simulation.timeline import Line
from tests.builders import ARollout, a_rollout

DIGEST = "2" * 64
METRICS: tuple[dict[str, Any], ...] = (
    {"name": "latency", "preset": "LatencyP95", "max": "5"},
    {"name": "errors", "preset": "ErrorRatio", "max": "100m"},
    {"name": "golden", "preset": "GoldenPassRatio", "min": "800m"},
    {"name": "memory", "preset": "MemoryBytes", "max": "1G"},
)


def a_step(percent: str, bake: int = 600) -> dict[str, Any]:
    return {"cohort": {"percent": percent}, "bakeSeconds": bake}


def a_policy(*steps: Any, metrics: tuple[dict[str, Any], ...] = METRICS, **strategy: Any) -> ARollout:
    """Three steps, limits of every kind."""
    rollout = a_rollout().stepping(*(steps or (a_step("10%"), a_step("50%"), a_step("100%", bake=1800))))
    rollout = rollout.having("spec.artifact", {"uri": "s3://models/new", "sha256": DIGEST})
    for name, value in {"minDevices": 2, "stepDeadlineSeconds": 7200, **strategy}.items():
        rollout = rollout.having(f"spec.strategy.{name}", value)
    for metric in metrics:
        rollout = rollout.with_metric(**metric)
    return rollout


def a_group(**fields: Any) -> dict[str, Any]:
    """Sixty devices with ten requests a minute."""
    usual = {"name": "all", "count": 60, "load": {"perHour": 600}, "spread": 0.3, "downloadSeconds": 60}
    return {**usual, **fields}


def a_scenario(*groups: dict[str, Any], **fields: Any) -> Scenario:
    return Scenario.model_validate({"groups": groups or (a_group(),), "longestSeconds": 86_400, **fields})


def built(policy: ARollout) -> EdgeRollout:
    """The rollout as a cluster would store it."""
    assert check(policy.manifest(), local=False) == []
    return EdgeRollout.from_object(with_defaults(policy.manifest()))


def simulated(policy: ARollout, *groups: dict[str, Any], **fields: Any) -> Simulation:
    """A simulation that has run to its end."""
    simulation = Simulation(built(policy), a_scenario(*groups, **fields), DIGEST)
    simulation.run()
    return simulation


def lines(simulation: Simulation, reason: str) -> list[Line]:
    """Transitions for a reason."""
    return [line for line in simulation.timeline.lines if line.reason == reason]
