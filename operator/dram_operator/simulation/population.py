"""The devices of an imagined fleet as columns, one entry a device in each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dram_agent.fleet.draw import Imagined, draw
from dram_agent.fleet.faults import Fault
from dram_agent.fleet.scenario import Behaviour, Scenario
from dram_operator.core.rollout.inventory import Device

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Population:
    """Who the devices are."""

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
    """The devices of a scenario."""
    drawn, numbers = draw(scenario), {group.name: number for number, group in enumerate(scenario.groups)}
    return Population(
        tuple(_device(one) for one in drawn),
        np.array([numbers[one.group.name] for one in drawn]),
        tuple(one.faults for one in drawn),
        load=np.array([one.load for one in drawn]),
        slowness=np.array([one.slowness for one in drawn]),
        frailty=np.array([one.frailty for one in drawn]),
        level=np.array([one.level for one in drawn]),
    )


def behaviours(scenario: Scenario) -> list[tuple[Behaviour, Behaviour]]:
    """How stable and candidate do, one pair a group."""
    return [(group.stable, group.on_candidate) for group in scenario.groups]


def _device(one: Imagined) -> Device:
    return Device(one.id, one.group.labels, one.group.device_class)
