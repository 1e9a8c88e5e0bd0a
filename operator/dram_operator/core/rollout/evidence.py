"""What devices say of themselves: who counts, who is well, who failed, and whether that is enough to go on."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil

from dram_operator.api.rollout_status import DeviceCounts

FRESH_INTERVALS = 3
"""A device that was silent for longer than this many intervals does not report."""
EVIDENCE_PERCENT = 80
"""Part of a small step's devices that have to be healthy."""


class OfflinePolicy(StrEnum):
    """What an offline device is to a step."""

    EXCLUDE = "Exclude"
    """Not waited for; it gets the current release when it comes back."""
    WAIT = "Wait"
    """Waited for."""
    COUNT_AS_FAILED = "CountAsFailed"
    """A failed device."""


@dataclass(frozen=True)
class DeviceView:
    """One device of the inventory, as its own telemetry told last."""

    in_cohort: bool
    """The step gives it the candidate."""
    last_seen: datetime | None = None
    """Its newest sample; None when it was not seen during the look-back."""
    release: str | None = None
    """Digest of the release that it says it runs."""
    healthy_since: datetime | None = None
    """Since when it has said, without a break, that this release is healthy."""
    activated_at: datetime | None = None
    """When it switched to the candidate."""
    gave_up: bool = False
    """It fell back from the candidate, refused it, or crashes with it."""
    excused: bool = False
    """Its silence may be the telemetry's own."""


@dataclass(frozen=True)
class Expectation:
    """What a step expects of its devices."""

    digest: str
    soak_seconds: int = 60
    interval_seconds: int = 60
    offline_after_seconds: int = 3600
    offline_policy: OfflinePolicy = OfflinePolicy.EXCLUDE
    min_devices: int = 5


@dataclass(frozen=True)
class Evidence:
    """Whether a step's devices prove enough."""

    needed: int
    found: int
    needs_approval: bool
    """Fewer devices than spec.strategy.minDevices can be had: people have to agree."""
    too_many_failed: bool
    """So many failed that the needed part of the expected ones cannot be healthy."""

    @property
    def enough(self) -> bool:
        """Whether the step may pass, as far as devices go. No device is never enough."""
        return self.found >= self.needed > 0 and not self.too_many_failed


def count_devices(devices: Iterable[DeviceView], expectation: Expectation, now: datetime) -> DeviceCounts:
    """Count the devices of the inventory by state; retired ones are not in it."""
    known = expected = reporting = healthy = failed = offline = 0
    for device in devices:
        known += 1
        if not device.in_cohort:
            continue
        bad, fresh, gone = _has_failed(device, expectation, now), _is_fresh(device, expectation, now), False
        if not bad:
            gone = _is_offline(device, expectation, now)
            bad = gone and expectation.offline_policy is OfflinePolicy.COUNT_AS_FAILED
        expected += not gone or expectation.offline_policy is not OfflinePolicy.EXCLUDE
        reporting += fresh
        healthy += not bad and fresh and _is_well(device, expectation, now)
        failed += bad
        offline += gone
    return DeviceCounts(
        known=known, expected=expected, reporting=reporting, healthy=healthy, failed=failed, offline=offline
    )


def weigh(counts: DeviceCounts, min_devices: int) -> Evidence:
    """Compare what there is with what a step needs: min(minDevices, 80 % of the expected)."""
    part = ceil(EVIDENCE_PERCENT * counts.expected / 100)
    return Evidence(
        needed=min(min_devices, part),
        found=counts.healthy,
        needs_approval=part < min_devices,
        too_many_failed=counts.failed > counts.expected - part,
    )


def _is_fresh(device: DeviceView, expectation: Expectation, now: datetime) -> bool:
    within = timedelta(seconds=FRESH_INTERVALS * expectation.interval_seconds)
    return device.last_seen is not None and now - device.last_seen <= within


def _is_offline(device: DeviceView, expectation: Expectation, now: datetime) -> bool:
    return device.last_seen is None or now - device.last_seen > timedelta(seconds=expectation.offline_after_seconds)


def _is_well(device: DeviceView, expectation: Expectation, now: datetime) -> bool:
    soak = timedelta(seconds=expectation.soak_seconds)
    since = device.healthy_since
    return device.release == expectation.digest and since is not None and now - since >= soak


def _has_failed(device: DeviceView, expectation: Expectation, now: datetime) -> bool:
    """A device that fell silent during its soak may have been killed by the candidate: silence does not clear it.

    After an outage of the telemetry every device seems to have been silent: none is blamed before it could have been heard again.
    """
    if device.gave_up:
        return True
    if device.excused or device.activated_at is None or device.last_seen is None or _is_fresh(device, expectation, now):
        return False
    return device.last_seen < device.activated_at + timedelta(seconds=expectation.soak_seconds)
