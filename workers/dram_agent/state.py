"""What a device remembers over a reboot, and how it changes."""

from enum import StrEnum
from typing import Self

from dram_agent.slots import Slot
from dram_workers.model import Model

FAILED_KEPT = 16
"""Failures that are remembered; a channel denies fewer at a time."""


class Why(StrEnum):
    """Why a device fell back or refused; the values of `dram_device_update_state`'s causes in the log and in state."""

    SMOKE = "smoke"
    """The smoke test failed."""
    CRASH_LOOP = "crash-loop"
    """The model's process ended again and again while on trial."""
    DENIED = "denied"
    """The channel says that nobody may run it."""
    LEASE = "lease"
    """No fresh metadata for as long as a candidate may go without."""
    FORMAT = "format"
    """The runtime does not read this format."""
    MEMORY = "memory"
    """It needs more memory than this device has."""
    AGENT_VERSION = "agent-version"
    """It needs a newer agent."""
    DEVICE_CLASS = "device-class"
    """The release has no build for this class of device."""


class Failed(Model):
    """A release that this device will not try again in this attempt."""

    release: str
    attempt: int
    why: Why


class DeviceState(Model):
    """What survives a reboot. Written whole, in one rename: that is the switch between the slots."""

    active: Slot | None = None
    """The slot that is served."""
    previous: Slot | None = None
    """The slot that was served before, to return to."""
    trial_since: float | None = None
    """When the active slot went on trial, in seconds since the epoch; null when it is not."""
    served_seconds: float = 0.0
    """For how long the active slot has been served, as of the last save; time without power does not count."""
    starts: int = 0
    """Starts of the model's process during the trial."""
    fresh_at: float = 0.0
    """When metadata was last fetched and valid, in seconds since the epoch."""
    failed: tuple[Failed, ...] = ()
    last_why: Why | None = None
    """Why the device last fell back or refused; null once it runs what it should."""

    def activated(self, slot: Slot, now: float) -> Self:
        """A tested slot is served, on trial; the slot before is the one to return to."""
        previous = self.active if self.active is not slot else self.previous
        changes = {"active": slot, "previous": previous, "trial_since": now, "starts": 0, "last_why": None}
        return self.model_copy(update={**changes, "served_seconds": 0.0})

    def served(self, seconds: float) -> Self:
        """The active slot was served for so much longer."""
        return self.model_copy(update={"served_seconds": self.served_seconds + seconds})

    def started(self) -> Self:
        """The model's process is being started. Counted before it runs, so that a crash of the whole device counts too."""
        return self if self.trial_since is None else self.model_copy(update={"starts": self.starts + 1})

    def confirmed(self) -> Self:
        """The trial went well."""
        return self.model_copy(update={"trial_since": None, "starts": 0, "last_why": None})

    def left(self, slot: Slot | None, why: Why | None) -> Self:
        """The active slot is given up for another one, or for none."""
        changes = {"active": slot, "previous": None, "trial_since": None, "starts": 0, "last_why": why}
        return self.model_copy(update={**changes, "served_seconds": 0.0})

    def failing(self, release: str, attempt: int, why: Why) -> Self:
        """A release cannot run here: it is not tried again in this attempt. The oldest failure is forgotten."""
        failed = Failed(release=release, attempt=attempt, why=why)
        kept = (*(each for each in self.failed if each != failed), failed)[-FAILED_KEPT:]
        return self.model_copy(update={"failed": kept, "last_why": why})

    def fresh(self, now: float) -> Self:
        """Metadata was fetched, and valid."""
        return self.model_copy(update={"fresh_at": now})
