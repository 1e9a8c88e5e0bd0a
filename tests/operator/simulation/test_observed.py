"""The simulation's Observed is the one that the operator would make of the same series in a real Prometheus."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isnan
from typing import Any

import pytest

from dram_operator.adapters.prometheus import Endpoint, Prometheus
from dram_operator.core.rollout.answers import Answer
from dram_operator.core.rollout.observed import Measured, Observed
from dram_operator.runtime.cache import Key
from dram_operator.runtime.rollouts.sight import Sight, View
from dram_operator.simulation.simulation import Simulation
from tests.cluster.prometheus import PrometheusServer
from tests.operator.simulation.imagined import DIGEST, METRICS, a_group, a_policy, a_scenario, a_step, built
from tests.operator.simulation.told import Notebook

UNTIL = 1920
INTERVAL = timedelta(seconds=60)
COMPARED = ({"name": "compared", "preset": "ErrorRatio", "compareTo": "Control", "margin": "10m"},)
FAULTS: tuple[dict[str, Any], ...] = (
    {"fault": "SmokeTest", "share": 0.5},
    {"fault": "Silent", "share": 0.5, "afterSeconds": 700},
    {"fault": "Offline", "share": 0.5, "fromSeconds": 900},
)
GROUPS = [a_group(count=12)] + [a_group(name=one["fault"].lower(), count=4, faults=[one]) for one in FAULTS]


@dataclass(frozen=True)
class Both:
    """What the simulation showed `decide`, and what the operator would have."""

    simulation: Simulation
    simulated: Observed
    real: View
    at: datetime


@pytest.fixture(scope="module")
def both() -> Both:
    policy = a_policy(a_step("50%", 7200), a_step("100%"), metrics=(*METRICS, *COMPARED))
    simulation = Simulation(built(policy), a_scenario(*GROUPS), DIGEST)
    notebook = Notebook(simulation)
    simulation.prometheus.record(0.0)
    while simulation.now < UNTIL:
        simulation._live(simulation.now + simulation._pause(simulation.step()))
    assert simulation.now == UNTIL
    simulated = simulation.observe()
    at = simulation._moment()
    with PrometheusServer(notebook.text()) as server:
        return Both(simulation, simulated, asyncio.run(looked(server.url, simulated, at)), at)


async def looked(url: str, observed: Observed, at: datetime) -> View:
    """One look of the operator, after a restart."""
    woken = asyncio.Event()
    sight = Sight({"default": Prometheus(Endpoint("default", url))}, lambda _: woken.set(), lambda: at, lambda: 0.0)
    key = Key("tv", "support-bot")
    try:
        sight.view(key, observed.rollout)
        await woken.wait()
        return sight.view(key, observed.rollout)
    finally:
        await sight.close()


def test_the_devices_are_the_same(both: Both) -> None:
    assert both.real.inventory
    assert both.simulated.inventory
    assert [one.id for one in both.real.inventory.devices] == [one.id for one in both.simulated.inventory.devices]


def test_every_device_reports_the_same(both: Both) -> None:
    assert both.real.reports
    assert both.simulated.reports
    assert both.real.reports.keys() == both.simulated.reports.keys()
    for device, simulated in both.simulated.reports.items():
        real = both.real.reports[device]
        assert (real.release, real.gave_up_on) == (simulated.release, simulated.gave_up_on)
        assert abs(real.last_seen - simulated.last_seen) <= INTERVAL
        assert (real.activated_at is None) == (simulated.activated_at is None)
        if real.activated_at and simulated.activated_at:
            assert abs(real.activated_at - simulated.activated_at) < timedelta(seconds=2)
        if both.at - real.last_seen <= 3 * INTERVAL and simulated.healthy_since:
            assert real.healthy_since
            assert abs(real.healthy_since - simulated.healthy_since) < timedelta(seconds=2)


def test_faults_were_among_them(both: Both) -> None:
    assert both.simulated.reports
    reports = both.simulated.reports.values()
    assert any(one.gave_up_on for one in reports)
    assert any(one.activated_at for one in reports)
    assert any(both.at - one.last_seen > 3 * INTERVAL for one in reports)


def test_every_metric_was_measured_alike(both: Both) -> None:
    real = {one.name: one for one in both.real.measured}
    assert real.keys() == {one.name for one in both.simulated.measured}
    for simulated in both.simulated.measured:
        if simulated.name != "compared":
            _alike(real[simulated.name].answer, simulated.answer)
            assert real[simulated.name].at == simulated.at


def test_a_figure_does_not_reach_back_before_its_attempt(both: Both) -> None:
    def latency(began: float) -> float:
        looks = both.simulation.prometheus.measure(UNTIL, both.simulation.status.attempt, began)
        (answer,) = (one.answer for one in looks if one.name == "latency")
        return answer.samples[0].value

    assert latency(0.0) > 0
    assert isnan(latency(UNTIL))


def _alike(real: Answer, simulated: Answer) -> None:
    assert (real.trouble, len(real.samples)) == (simulated.trouble, len(simulated.samples)) == (None, 1)
    assert real.samples[0].value == pytest.approx(simulated.samples[0].value, rel=1e-6)
    assert real.support == pytest.approx(simulated.support, rel=0.1)
    assert real.newest == simulated.newest


def test_every_window_that_has_closed_shows_the_same_of_every_device(both: Both) -> None:
    real, simulated = (_compared(one) for one in (both.real.measured, both.simulated.measured))
    assert [number for number, _ in real.windows] == [number for number, _ in simulated.windows] != []
    for (_, one), (_, other) in zip(real.windows, simulated.windows, strict=True):
        assert one.trouble is None
        assert one.newest == other.newest
        assert _values(one) == pytest.approx(_values(other), rel=1e-6)


def _compared(measured: tuple[Measured, ...]) -> Measured:
    return next(one for one in measured if one.name == "compared")


def _values(answer: Answer) -> dict[str, float]:
    return {one.labels["device"]: one.value for one in answer.samples if not isnan(one.value)}
