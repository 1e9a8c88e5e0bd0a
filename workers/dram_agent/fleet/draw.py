"""The devices of an imagined fleet, drawn once: who they are, how they differ, and what will go wrong with each."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log1p, sqrt

from dram_agent.fleet.faults import Fault
from dram_agent.fleet.scenario import Group, Scenario, hit

LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class Imagined:
    """One device."""

    id: str
    group: Group
    faults: tuple[Fault, ...]
    """What will go wrong with it."""
    load: float
    """Its requests to a usual device's."""
    slowness: float
    """Its seconds to a usual device's."""
    frailty: float
    """Its error ratio to a usual device's."""
    level: float
    """Its own measures to a usual device's."""


def draw(scenario: Scenario) -> list[Imagined]:
    """The devices in the order of their ids; the same scenario gives the same ones."""
    dice = random.Random(scenario.seed)  # noqa: S311 -- nothing secret is drawn
    found = [device for group in scenario.groups for device in _of_group(group, dice)]
    return sorted(found, key=lambda device: device.id)


def _of_group(group: Group, dice: random.Random) -> Iterator[Imagined]:
    ids = group.device_ids or [f"{dice.getrandbits(128):032x}" for _ in range(group.size)]
    places = dice.sample(range(group.size), group.size)
    for device, place in zip(ids, places, strict=True):
        yield Imagined(
            device,
            group,
            tuple(fault for fault in group.faults if place < hit(fault.share, group.size)),
            load=_gamma(dice, group.spread),
            slowness=exp(dice.gauss() * sqrt(log1p(group.spread**2))),
            frailty=_gamma(dice, group.spread),
            level=_gamma(dice, group.spread),
        )


def _gamma(dice: random.Random, spread: float) -> float:
    """A factor with mean 1 and this coefficient of variation."""
    shape = 1 / max(spread, LEAST_SPREAD) ** 2
    return dice.gammavariate(shape, 1 / shape)
