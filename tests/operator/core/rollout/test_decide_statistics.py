"""Rule 4 through `decide` itself: whole attempts of devices that differ (CV 1), under a daily load, with fifty looks."""

import re
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from scipy.stats import binomtest

from dram_operator.core.rollout.answers import Answer, Sample
from dram_operator.core.rollout.cohort import arms, salt_of
from dram_operator.core.rollout.decide import decide
from dram_operator.core.rollout.inventory import Device, Inventory
from dram_operator.core.rollout.observed import DeviceReport, Measured, Observed
from tests.operator.core.rollout.clustered import ERRORS, LOOKS, REQUESTS
from tests.operator.core.rollout.world import NEW, OLD, START, World, good, step, stepping

ALPHA = 0.05
DEVICES = 200
INTERVAL_SECONDS = 60
ENOUGH = 1000
"""Attempts from which an interval says something."""
EXPOSURES = 10
"""Windows of five intervals: fifty looks see ten of them."""
TOLD = re.compile(r"are seen from (\S+) on")
METRIC = {"name": "errors", "preset": "ErrorRatio", "compareTo": "Control", "margin": "100u", "inconclusiveLimit": 100}


def a_channel() -> tuple[World, Observed]:
    """A step that treats half of the devices, as its first look finds it."""
    world = World(manifest=stepping(step("50%", 7200), metrics=(METRIC,)), fleet=DEVICES)
    world.reconcile()
    return world, world.observe()


def values(dice: np.random.Generator, harm: float) -> tuple[np.ndarray, np.ndarray]:
    """Error ratios [window, device] of a fleet, unharmed and harmed, for devices that take up the release one after another."""
    rate = ERRORS * dice.standard_gamma(1.0, DEVICES)
    phase = dice.uniform(0, 2 * np.pi)
    day = 1 + 0.6 * np.sin(2 * np.pi * np.arange(EXPOSURES) / EXPOSURES + phase)
    requests = 1 + dice.poisson(REQUESTS * day[:, None], (EXPOSURES, DEVICES))
    plain = np.clip(rate * day[:, None], 0, 1)
    return dice.binomial(requests, plain) / requests, dice.binomial(requests, np.clip(plain + harm, 0, 1)) / requests


def attempt(seed: int, harm: float = 0.0) -> tuple[bool, float | None]:
    """Whether fifty looks at one step sent the release back, and the smallest difference that the condition told at the end."""
    dice = np.random.default_rng(seed)
    world, observed = a_channel()
    ids = [f"{dice.bytes(16).hex()}" for _ in range(DEVICES)]
    before = World(manifest=world.manifest).status
    inventory = Inventory(tuple(Device(name) for name in ids))
    observed = replace(observed, inventory=inventory, rollout=observed.rollout.model_copy(update={"status": before}))
    status = decide(observed, world.delivery, START).status
    fleet = inventory.salted(salt_of(observed.rollout.channel, NEW))
    treated = set(arms(status.reach, fleet, {}).treated.values())
    unharmed, harmed = values(dice, harm)
    started = {
        name: START + timedelta(seconds=float(dice.uniform(0, 0.6 * LOOKS * INTERVAL_SECONDS))) for name in treated
    }
    windows = tuple(
        (number, _answer(ids, np.where([name in treated for name in ids], harmed[number], unharmed[number]), number))
        for number in range(EXPOSURES)
    )
    for look in range(1, LOOKS + 1):
        now = START + timedelta(seconds=look * INTERVAL_SECONDS)
        closed = tuple(one for one in windows if (one[0] + 1) * 300 <= look * INTERVAL_SECONDS)
        reports = {name: _report(started.get(name), now) for name in ids}
        measured = (Measured("errors", now, windows=closed), Measured("fallback-ratio", now, answer=good(now)))
        seen = replace(
            observed,
            rollout=observed.rollout.model_copy(update={"status": status}),
            reports=reports,
            measured=measured,
        )
        status = decide(seen, world.delivery, now).status
        if status.rollback is not None:
            return True, None
    condition = next(one for one in status.conditions if one.type == "StepTooSmallToJudge")
    told = TOLD.search(condition.message)
    return False, float(told[1]) if told else None


def _answer(ids: list[str], found: np.ndarray, number: int) -> Answer:
    end = START + timedelta(seconds=(number + 1) * 300)
    return Answer(
        tuple(Sample({"device": name}, float(value)) for name, value in zip(ids, found, strict=True)), newest=end
    )


def _report(started: datetime | None, now: datetime) -> DeviceReport:
    updated = started is not None and started <= now
    since = started if updated else None
    return DeviceReport(now, NEW if updated else OLD, since or START, since)


def check(count: int) -> None:
    """Every attempt twice: between equal arms, and with the harm that the first one said it can see.

    Where most devices show no error at all, a harm in proportion shows on few of them: such a step promises nothing.
    """
    pairs = [attempt(seed) for seed in range(count)]
    told = {seed: seen for seed, (_, seen) in enumerate(pairs) if seen is not None}
    wrong = sum(rolled_back for rolled_back, _ in pairs)
    found = sum(attempt(seed, harm=seen)[0] for seed, seen in told.items())
    alarms = binomtest(wrong, count).proportion_ci(0.99)
    power = binomtest(found, len(told)).proportion_ci(0.99)
    print(f"{wrong} of {count} attempts between equal arms rolled back: 99 % interval to {alarms.high:.4f}")  # noqa: T201
    print(f"{found} of {len(told)} attempts with the declared harm rolled back: 99 % interval from {power.low:.4f}")  # noqa: T201
    assert len(told) > count / 2
    assert found >= 0.9 * len(told)
    assert alarms.high <= ALPHA or count < ENOUGH
    assert power.low >= 0.9 or count < ENOUGH


def test_a_few_attempts_are_decided_as_they_should_be() -> None:
    check(3)


@pytest.mark.heavy
@pytest.mark.timeout(7200)
def test_a_thousand_attempts_are_decided_as_they_should_be() -> None:
    check(ENOUGH)
