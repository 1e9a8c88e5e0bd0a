"""The devices of an imagined fleet, drawn once: who they are, how they differ, and what will go wrong with each."""

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dram_agent.fleet.faults import Fault
from dram_agent.fleet.scenario import Behaviour, Group, Scenario, hit
from dram_operator.core.rollout.inventory import Device

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Population:
    """One entry a device in everything."""

    inventory: tuple[Device, ...]
    """In the order of their ids, as the operator has them."""
    group: NDArray[np.int64]
    """Number of its group."""
    faults: tuple[tuple[Fault, ...], ...]
    """What will go wrong with it."""
    load: Floats
    """Its requests to a usual device's."""
    slowness: Floats
    """Its seconds to a usual device's."""
    frailty: Floats
    """Its error ratio to a usual device's."""
    level: Floats
    """Its own measures to a usual device's."""

    @property
    def size(self) -> int:
        """How many devices there are."""
        return len(self.inventory)


def populate(scenario: Scenario) -> Population:
    """Draw the devices; the same scenario gives the same ones."""
    names, dice = random.Random(scenario.seed), np.random.default_rng([scenario.seed, 0])  # noqa: S311
    devices, group, faults = list[Device](), list[int](), list[tuple[Fault, ...]]()
    for number, one in enumerate(scenario.groups):
        ids = one.device_ids or [f"{names.getrandbits(128):032x}" for _ in range(one.size)]
        devices += [Device(name, one.labels, one.device_class) for name in ids]
        group += [number] * one.size
        faults += _drawn(one, dice)
    order = sorted(range(len(devices)), key=lambda number: devices[number].id)
    spread = np.array([scenario.groups[group[number]].spread for number in order])
    return Population(
        tuple(devices[number] for number in order),
        np.array([group[number] for number in order]),
        tuple(faults[number] for number in order),
        load=_gamma(dice, spread),
        slowness=_lognormal(dice, spread),
        frailty=_gamma(dice, spread),
        level=_gamma(dice, spread),
    )


def behaviours(scenario: Scenario) -> list[tuple[Behaviour, Behaviour]]:
    """How stable and candidate do, one pair a group."""
    return [(group.stable, group.on_candidate) for group in scenario.groups]


def _drawn(group: Group, dice: np.random.Generator) -> list[tuple[Fault, ...]]:
    """The faults of each device of a group; every fault starts with the same devices."""
    order = dice.permutation(group.size)
    place = np.empty(group.size, dtype=int)
    place[order] = np.arange(group.size)
    return [
        tuple(fault for fault in group.faults if place[number] < hit(fault.share, group.size))
        for number in range(group.size)
    ]


def _gamma(dice: np.random.Generator, spread: Floats) -> Floats:
    """Factors with mean 1 and this coefficient of variation."""
    shape = 1 / np.maximum(spread, 1e-3) ** 2
    return np.asarray(dice.gamma(shape) / shape)


def _lognormal(dice: np.random.Generator, spread: Floats) -> Floats:
    """Factors with median 1 and this coefficient of variation."""
    return np.asarray(np.exp(dice.standard_normal(len(spread)) * np.sqrt(np.log1p(spread**2))))
