"""What a device tells of itself: what it is at, and its part in the rollout."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """What the device is at; the values of the label `state` of `dram_device_update_state`."""

    CURRENT = "current"
    """It runs what it should, or what its owner lets it."""
    DOWNLOADING = "downloading"
    TESTING = "testing"
    SOAKING = "soaking"
    """It runs a new release on trial."""
    FELL_BACK = "fell-back"
    """It had to leave a release, and runs another one or none."""
    REFUSED = "refused"
    """The release cannot run on this device."""
    WAITING = "waiting"
    """It cannot go on now: no space, no network, or nothing that it may believe."""


class Arm(StrEnum):
    """The side of the comparison that the device is on, by assignment: also after it fell back."""

    TREATED = "treated"
    CONTROL = "control"


@dataclass(frozen=True)
class Standing:
    """The device's part in the rollout."""

    attempt: int = 0
    arm: Arm = Arm.CONTROL
    gave_up: Mapping[str, bool] = field(default_factory=dict)
    """The releases on offer, and whether this device will not run them in this attempt: it failed with them."""
    release: str | None = None
    """The release that is active; None is no local model."""
    release_seconds: float = 0.0
    """For how long it has been, by a clock that nobody sets."""
