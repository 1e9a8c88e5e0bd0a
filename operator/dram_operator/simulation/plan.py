"""Which devices a rollout would move, step by step, and when at the earliest. Nothing is written anywhere."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_spec import DEFAULT_BAKE_SECONDS
from dram_operator.api.rollout_status import DeviceCounts, Reach
from dram_operator.core.rollout.cohort import hold_back, members, salt_of, widen
from dram_operator.core.rollout.course import SOAK_INTERVALS
from dram_operator.core.rollout.evidence import weigh
from dram_operator.core.rollout.inventory import Inventory
from dram_operator.core.rollout.windows import opening


@dataclass(frozen=True)
class PlannedStep:
    """One step, as it would go when nothing goes wrong."""

    shown: str
    """Its place from 1, and how many there are, as 2/5."""
    starts_at: datetime
    """The earliest moment: every step before passed at once, and people took no time."""
    moves: tuple[str, ...]
    """Devices that it adds, by id, in the order of their hashes."""
    total: int
    """Devices that are meant to run the candidate then."""
    bake_seconds: int
    approval: str
    """Why it waits for a person; empty when it does not."""
    approximate: bool
    """Whether the cut-off is a share of all hashes, because there are too many devices to count them exactly."""


@dataclass(frozen=True)
class Plan:
    """A whole rollout."""

    known: int
    held_back: int
    """Devices that stay on stable until the candidate becomes stable."""
    steps: tuple[PlannedStep, ...]
    stable_at: datetime
    """The earliest moment at which the candidate becomes stable."""


def plan(rollout: EdgeRollout, inventory: Inventory, digest: str, now: datetime) -> Plan:
    """The course of an attempt that begins now. Raises WindowInvalid."""
    strategy, salt = rollout.spec.strategy, salt_of(rollout.channel, digest)
    fleet, soak = inventory.salted(salt), SOAK_INTERVALS * rollout.spec.analysis.interval_seconds
    reach = Reach(control=hold_back(strategy.holdback_percent, fleet))
    before, found, at = list[int](), list[PlannedStep](), now
    for number, step in enumerate(strategy.steps, start=1):
        at, approximate = _open_from(rollout, at), False
        if step.cohort:
            widened = widen(reach, step.cohort, fleet, salt)
            reach, approximate = widened.reach, widened.approximate
        meant = list(members(reach, fleet))
        added = tuple(fleet.devices[hashed].id for hashed in meant if hashed not in set(before))
        bake = 0 if step.pause else DEFAULT_BAKE_SECONDS if step.bake_seconds is None else step.bake_seconds
        why = "it is a pause" if step.pause else _approval(len(meant), strategy.min_devices)
        shown = f"{number}/{len(strategy.steps)}"
        found.append(PlannedStep(shown, at, added, len(meant), bake, why, approximate))
        before = meant
        at += timedelta(seconds=0 if step.pause else soak + bake)
    return Plan(inventory.known, inventory.known - len(before), tuple(found), _open_from(rollout, at))


def _open_from(rollout: EdgeRollout, moment: datetime) -> datetime:
    """The first moment from here on at which the rollout may move forward."""
    found = opening(rollout.spec.strategy.windows, moment)
    return moment if found.is_open or found.changes_at is None else found.changes_at


def _approval(expected: int, min_devices: int) -> str:
    needs = weigh(DeviceCounts(expected=expected), min_devices).needs_approval
    return f"it has too few devices for minDevices: {min_devices}" if needs else ""
