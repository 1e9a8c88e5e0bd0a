"""Who counts as what, and when there is enough."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dram_operator.api.rollout_status import DeviceCounts
from dram_operator.core.rollout.evidence import (
    DeviceView,
    Expectation,
    OfflinePolicy,
    count_devices,
    weigh,
)

NOW = datetime(2030, 5, 1, 12, tzinfo=UTC)
NEW, OTHER = "a" * 64, "b" * 64
STEP = Expectation(digest=NEW, soak_seconds=120)


def ago(seconds: int) -> datetime:
    return NOW - timedelta(seconds=seconds)


WELL = DeviceView(True, last_seen=ago(10), release=NEW, healthy_since=ago(120), activated_at=ago(200))


def counted(device: DeviceView, policy: OfflinePolicy = OfflinePolicy.EXCLUDE) -> tuple[int, ...]:
    """expected, reporting, healthy, failed, offline."""
    counts = count_devices([device], replace(STEP, offline_policy=policy), NOW)
    assert counts.known == 1
    return (counts.expected, counts.reporting, counts.healthy, counts.failed, counts.offline)


@pytest.mark.parametrize(
    ("device", "want"),
    [
        (WELL, (1, 1, 1, 0, 0)),
        (replace(WELL, in_cohort=False), (0, 0, 0, 0, 0)),
        (replace(WELL, healthy_since=ago(119)), (1, 1, 0, 0, 0)),
        (replace(WELL, healthy_since=None), (1, 1, 0, 0, 0)),
        (replace(WELL, release=OTHER), (1, 1, 0, 0, 0)),
        (replace(WELL, release=None), (1, 1, 0, 0, 0)),
        (replace(WELL, last_seen=ago(180)), (1, 1, 1, 0, 0)),
        (replace(WELL, last_seen=ago(181), activated_at=ago(301)), (1, 0, 0, 0, 0)),
        (replace(WELL, gave_up=True), (1, 1, 0, 1, 0)),
        (replace(WELL, gave_up=True, release=OTHER), (1, 1, 0, 1, 0)),
        (replace(WELL, last_seen=ago(181), activated_at=ago(300)), (1, 0, 0, 1, 0)),
        (replace(WELL, last_seen=ago(9000), activated_at=ago(9100)), (1, 0, 0, 1, 0)),
        (replace(WELL, last_seen=ago(181), activated_at=ago(300), excused=True), (1, 0, 0, 0, 0)),
        (replace(WELL, gave_up=True, excused=True), (1, 1, 0, 1, 0)),
        (replace(WELL, last_seen=ago(3601), activated_at=None), (0, 0, 0, 0, 1)),
        (replace(WELL, last_seen=None, activated_at=None), (0, 0, 0, 0, 1)),
        (replace(WELL, last_seen=ago(9000), activated_at=ago(20000)), (0, 0, 0, 0, 1)),
    ],
)
def test_a_device_counts_by_its_own_telemetry(device: DeviceView, want: tuple[int, ...]) -> None:
    assert counted(device) == want


@pytest.mark.parametrize(
    ("policy", "want"),
    [
        (OfflinePolicy.EXCLUDE, (0, 0, 0, 0, 1)),
        (OfflinePolicy.WAIT, (1, 0, 0, 0, 1)),
        (OfflinePolicy.COUNT_AS_FAILED, (1, 0, 0, 1, 1)),
    ],
)
def test_an_offline_device_follows_the_policy(policy: OfflinePolicy, want: tuple[int, ...]) -> None:
    assert counted(DeviceView(True, last_seen=ago(4000)), policy) == want


@pytest.mark.parametrize(
    ("expected", "min_devices", "needed", "approval"),
    [(0, 5, 0, True), (1, 5, 1, True), (3, 5, 3, True), (6, 5, 5, False), (7, 5, 5, False), (1000, 5, 5, False)],
)
def test_a_step_needs_the_smaller_of_a_number_and_a_part(
    expected: int, min_devices: int, needed: int, approval: bool
) -> None:
    found = weigh(DeviceCounts(known=2000, expected=expected, healthy=needed), min_devices)
    assert (found.needed, found.needs_approval, found.enough) == (needed, approval, expected > 0)
    if needed:
        less = weigh(DeviceCounts(known=2000, expected=expected, healthy=needed - 1), min_devices)
        assert not less.enough


def test_no_device_is_never_enough() -> None:
    assert not weigh(DeviceCounts(known=10), 1).enough


@pytest.mark.parametrize(
    ("expected", "failed", "want"),
    [(1, 0, False), (1, 1, True), (3, 1, True), (5, 1, False), (6, 2, True), (100, 20, False), (100, 21, True)],
)
def test_failed_devices_are_too_many_when_the_rest_cannot_do(expected: int, failed: int, want: bool) -> None:
    counts = DeviceCounts(known=expected, expected=expected, healthy=expected - failed, failed=failed)
    assert weigh(counts, 5).too_many_failed is want


def test_one_dead_device_blocks_nothing() -> None:
    dead = DeviceView(True, last_seen=ago(4000))
    counts = count_devices([WELL, WELL, dead], STEP, NOW)
    assert weigh(counts, 2).enough


moments = st.one_of(st.none(), st.integers(0, 10_000).map(ago))
devices = st.builds(
    DeviceView, st.booleans(), moments, st.sampled_from([None, NEW, OTHER]), moments, moments, st.booleans()
)


@given(st.lists(devices, max_size=20), st.sampled_from(OfflinePolicy))
def test_counts_contain_each_other(fleet: list[DeviceView], policy: OfflinePolicy) -> None:
    counts = count_devices(fleet, replace(STEP, offline_policy=policy), NOW)
    assert counts.known == len(fleet)
    assert counts.healthy <= counts.reporting <= counts.known
    assert counts.healthy + counts.failed <= counts.expected <= counts.known
