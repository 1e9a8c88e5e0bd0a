"""Rule 18: which devices a rollout would move, and when, before anything is written."""

from datetime import UTC, datetime

import pytest

from dram_operator.core.rollout.inventory import Device, Inventory
from dram_operator.simulation.plan import Plan, plan
from tests.operator.simulation.imagined import DIGEST, a_group, a_policy, a_step, built, lines, simulated

NOW = datetime(2030, 1, 7, 12, tzinfo=UTC)
NAMED = "0f" * 16


def planned(policy: object, count: int = 40, **labels: str) -> Plan:
    devices = [Device(f"{number:032x}", labels if number % 4 == 0 else {}) for number in range(count)]
    return plan(built(policy), Inventory((*devices, Device(NAMED))), DIGEST, NOW)  # type: ignore[arg-type]


def test_the_devices_that_are_named_are_those_that_move() -> None:
    policy = a_policy(a_step("10%"), a_step("50%"), a_step("100%"))
    simulation = simulated(policy, a_group(), longestSeconds=600)
    known = Inventory(simulation.devices.population.inventory)
    steps = plan(built(policy), known, DIGEST, simulation.scenario.starts_at).steps
    treated = {known.devices[number].id for number in simulation.devices.treated.nonzero()[0]}
    assert len(treated) == 6
    assert treated == set(steps[0].moves)
    assert [len(step.moves) for step in steps] == [6, 24, 30]
    assert lines(simulation, "StepStarted")[0].at == "2030-01-07T00:00:00Z"


def test_named_devices_selectors_and_the_rest() -> None:
    named = {"cohort": {"deviceIds": [NAMED]}, "bakeSeconds": 60}
    ring = {"cohort": {"percent": "50%", "selector": {"matchLabels": {"ring": "early"}}}, "bakeSeconds": 60}
    found = planned(a_policy(named, ring, "pause", a_step("100%")), ring="early")
    assert found.steps[0].moves == (NAMED,)
    assert [len(step.moves) for step in found.steps] == [1, 5, 0, 35]
    assert all(int(device, 16) % 4 == 0 for device in found.steps[1].moves)
    assert [step.total for step in found.steps] == [1, 6, 6, 41]
    assert found.steps[2].approval == "it is a pause"


def test_few_devices_need_approval_and_held_back_ones_stay() -> None:
    found = planned(a_policy(a_step("5%"), a_step("100%"), minDevices=5, holdbackPercent="10%"))
    assert found.steps[0].approval.startswith("it has too few devices for minDevices: 5")
    assert (found.held_back, found.steps[1].total, found.steps[1].approval) == (5, 36, "")


def test_bakes_soaks_and_windows_decide_when() -> None:
    window = {"schedule": "0 14 * * *", "durationSeconds": 900, "timeZone": "Etc/UTC"}
    found = planned(a_policy(a_step("10%", 600), a_step("100%", 60), windows=[window]))
    assert [step.starts_at.isoformat() for step in found.steps] == [
        "2030-01-07T14:00:00+00:00",
        "2030-01-07T14:13:00+00:00",
    ]
    assert found.stable_at.isoformat() == "2030-01-08T14:00:00+00:00"


@pytest.mark.parametrize("count", [10_000, 10_001])
def test_large_fleets_are_said_to_be_approximate(count: int) -> None:
    found = planned(a_policy(a_step("1%"), a_step("100%")), count=count - 1)
    assert found.steps[0].approximate is (count > 10_000)
    assert found.steps[0].moves if count > 10_000 else len(found.steps[0].moves) == 100
