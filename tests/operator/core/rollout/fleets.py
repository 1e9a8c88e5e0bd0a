"""Fleets for tests: devices with ids as enrolment makes them."""

import random
from collections.abc import Callable, Mapping

from dram_operator.core.rollout.inventory import Device, Fleet, Inventory

SALT = "6472616d"
Labels = Callable[[int], Mapping[str, str]]


def an_inventory(count: int, labels: Labels | None = None, *, seed: int = 1) -> Inventory:
    """So many devices, labelled by their number."""
    dice = random.Random(seed)
    return Inventory(
        tuple(Device(f"{dice.getrandbits(128):032x}", labels(index) if labels else {}) for index in range(count))
    )


def a_fleet(count: int, labels: Labels | None = None, *, seed: int = 1) -> Fleet:
    """The same devices in the order of their hashes."""
    return an_inventory(count, labels, seed=seed).salted(SALT)


def every(number: int) -> Labels:
    """Puts every so many devices into the early ring."""
    return lambda index: {"ring": "early"} if index % number == 0 else {"ring": "late"}
