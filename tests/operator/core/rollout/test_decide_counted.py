"""Rule 9: ten devices, ten thousand, or a million that are only counted: one engine, and one size of status."""

import pytest

from dram_agent.cohort import device_hash
from dram_operator.api.rollout_spec import DeviceSelector, StepCohort
from dram_operator.api.rollout_status import Cutoff, Reach, StepState
from dram_operator.core.rollout.cohort import Sizes, hold_back, offline, percent_of, salt_of, sizes, widen
from dram_operator.core.rollout.inventory import Fleet, Group, Inventory
from tests.builders import ARollout
from tests.operator.core.rollout.large import COMPARED, USUAL, Channel
from tests.operator.core.rollout.world import NEW, step, stepping

LIMIT_BYTES = 64 << 10
MILLION = 1_000_000


def to_the_end(channel: Channel, passes: int = 60) -> Channel:
    for _ in range(passes):
        channel.go_on()
        assert len(channel.status.model_dump_json(by_alias=True).encode()) < LIMIT_BYTES
        assert channel.signed is not None
        assert len(channel.signed.encode()) < LIMIT_BYTES
    return channel


@pytest.mark.parametrize("devices", [10, 10_000, MILLION])
def test_a_good_release_becomes_stable_whatever_the_size(devices: int) -> None:
    channel = to_the_end(
        Channel(devices, stepping(step("20%", 300), step("100%", 300))), 20 if devices == 10_000 else 60
    )
    assert channel.status.stable is not None
    assert channel.status.stable.release.digest == NEW
    assert channel.events == ["Resolved", *["StepStarted", "Baking", "StepPassed"] * 2, "Completed"]


def test_more_than_ten_thousand_listed_devices_share_out_by_their_hashes_and_it_is_said() -> None:
    channel = Channel(12_000, stepping(step("10%", 300), step("100%", 300)))
    for _ in range(5):
        channel.go_on()
    at_work, salt = channel.status.step, bytes.fromhex(salt_of("tv/support-bot", NEW))
    assert at_work is not None
    assert at_work.approximate
    meant = sum(device_hash(salt, one.id) < 2**64 // 10 for one in channel.inventory.devices)
    assert (at_work.treated, at_work.devices.healthy, at_work.devices.known) == (meant, meant, 12_000)
    assert "a share of all hashes as there are more than 10000" in channel.told


def test_a_million_devices_are_counted_by_the_shares_of_their_hashes() -> None:
    channel = Channel(MILLION, USUAL)
    for _ in range(3):
        channel.go_on()
    step_at_work = channel.status.step
    assert step_at_work is not None
    assert step_at_work.approximate
    assert (step_at_work.treated, step_at_work.control, step_at_work.percent) == (100_000, 900_000, 10)
    assert (step_at_work.devices.known, step_at_work.devices.expected, step_at_work.devices.healthy) == (
        MILLION,
        100_000,
        100_000,
    )


def test_too_many_failed_of_a_million_send_it_back_until_none_runs_it() -> None:
    channel = Channel(MILLION, USUAL)
    for _ in range(6):
        channel.go_on()
    channel.failed = 30_000
    to_the_end(channel, 10)
    assert channel.events[-2:] == ["RollingBack", "RolledBack"]
    assert channel.status.rollback is not None
    assert channel.status.rollback.reason == "DevicesFailed"


def test_without_totals_nobody_can_tell_and_nothing_passes() -> None:
    channel = Channel(MILLION, USUAL)
    for _ in range(4):
        channel.go_on()
    channel._totals = lambda: None  # type: ignore[method-assign, assignment, return-value]
    before = channel.status.step
    to_the_end(channel, 60)
    assert before is not None
    assert channel.status.step is not None
    assert (channel.status.step.index, channel.status.step.devices) == (0, before.devices)
    assert "RollingBack" not in channel.events


@pytest.mark.parametrize(
    ("policy", "want"), [("Exclude", (90_000, 0)), ("Wait", (100_000, 0)), ("CountAsFailed", (100_000, 10_000))]
)
def test_offline_devices_follow_the_policy(policy: str, want: tuple[int, int]) -> None:
    channel = Channel(MILLION, USUAL.having("spec.strategy.offline", {"policy": policy}), offline=100_000)
    for _ in range(3):
        channel.go_on()
    assert channel.status.step is not None
    found = channel.status.step.devices
    assert (found.expected, found.failed, found.offline) == (*want, 10_000)


def test_devices_that_went_silent_with_the_candidate_have_failed_and_are_not_offline_too() -> None:
    groups = (Group(1000, {"ring": "early"}, 60), Group(1000, {}, 40))
    half = Reach(cutoffs=(Cutoff(cutoff="7" + "f" * 15),))
    assert [offline(half, Fleet([], groups=groups), silent) for silent in (0, 20, 100, 500)] == [50, 40, 0, 0]
    ring = Reach(cutoffs=(Cutoff(cutoff="7" + "f" * 15, match_labels={"ring": "early"}),))
    assert offline(ring, Fleet([], groups=groups), 0) == 30
    assert offline(half, Fleet([], groups=(Group(10),)), 0) == 0


def test_named_devices_of_a_counted_fleet_are_expected_as_they_are_named() -> None:
    fleet = Fleet([], groups=(Group(20_000),))
    named = tuple(f"{number:016x}" for number in range(5))
    assert sizes(Reach(named=named), fleet, {}) == Sizes(5, 19_995)
    half = Reach(named=named, cutoffs=(Cutoff(cutoff="7" + "f" * 15),))
    assert sizes(half, fleet, {}) == Sizes(10_002, 9_998)
    assert sizes(Reach(named=named), Fleet([], groups=(Group(3),)), {}) == Sizes(3, 0)


def test_devices_that_are_only_counted_are_never_taken_for_alike() -> None:
    manifest: ARollout = USUAL.with_metric(**COMPARED)
    channel = Channel(MILLION, manifest)
    for _ in range(40):
        channel.go_on()
    assert channel.status.step is not None
    assert (channel.status.step.index, channel.status.step.state) == (0, StepState.AWAITING_APPROVAL)
    assert "MetricInconclusive" in channel.events
    told = next(one for one in channel.status.conditions if one.type == "StepTooSmallToJudge")
    assert (told.status, "only counted" in told.message) == ("True", True)


def test_groups_and_listed_devices_make_one_fleet() -> None:
    fleet = Fleet([10, 20], groups=(Group(300_000, {"ring": "early"}), Group(700_000)))
    early = StepCohort(percent="50%", selector=DeviceSelector(match_labels={"ring": "early"}))
    reach = widen(Reach(control=hold_back("10%", fleet)), early, fleet, "00").reach
    assert fleet.known == Inventory(groups=fleet.groups).known + 2
    assert sizes(reach, fleet, {"ring": "early"}) == Sizes(150_000, 150_000)
    assert percent_of(reach, fleet) == 14
    everybody = widen(reach, StepCohort(percent="100%"), fleet, "00").reach
    assert sizes(everybody, fleet, {}) == Sizes(900_002, 100_000)


def test_a_fleet_that_is_counted_shares_out_by_hashes_however_small() -> None:
    fleet = Fleet([], groups=(Group(9_990),))
    assert widen(Reach(), StepCohort(percent="10%"), fleet, "00").approximate
    assert widen(Reach(), StepCohort(percent="100%"), fleet, "00").approximate
    assert hold_back("10%", fleet) == hold_back("10%", Fleet([], groups=(Group(MILLION),)))
