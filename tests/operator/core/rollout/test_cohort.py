"""Which devices a step adds: exact, growing, the same at every retry."""

from bisect import bisect_right, insort
from fractions import Fraction
from itertools import pairwise
from math import ceil
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dram_agent.cohort import hash_hex, is_held_back, is_member
from dram_agent.document import ChannelDocument, Control
from dram_operator.api.rollout_spec import DeviceSelector, Step, StepCohort
from dram_operator.api.rollout_status import Cutoff, Reach
from dram_operator.core.rollout.cohort import (
    EXACT_DEVICES,
    HASHES,
    Widened,
    arms,
    hold_back,
    members,
    narrow,
    percent_of,
    salt_of,
    share_of,
    widen,
)
from dram_operator.core.rollout.document import Delivery, channel_document
from dram_operator.core.rollout.inventory import Fleet
from tests.builders import a_rollout
from tests.operator.api.rollout_statuses import SEVENTH, a_release_status
from tests.operator.core.rollout.fleets import SALT, a_fleet, an_inventory, every

PLANS = (
    ("1%", "10%", "50%", "100%"),
    ("0.0001%", "0.0002%", "0.0003%", "99.9999%", "100%"),
    ("50%", "50%", "50%", "100%"),
    ("33.3333%", "66.6667%", "100%"),
    ("100%",),
)
EARLY = {"ring": "early"}


def percent(text: str, labels: dict[str, str] | None = None) -> StepCohort:
    return StepCohort(percent=text, selector=DeviceSelector(match_labels=labels) if labels else None)


def walk(fleet: Fleet, *cohorts: StepCohort, control: Control | None = None) -> list[Widened]:
    found: list[Widened] = []
    reach = Reach(control=control)
    for cohort in cohorts:
        found.append(widen(reach, cohort, fleet, SALT))
        reach = found[-1].reach
    return found


def document_of(reach: Reach) -> ChannelDocument:
    """The document that is signed for a reach."""
    candidate = a_release_status(7, SEVENTH).model_dump(mode="json", by_alias=True)
    status = {"attempt": 1, "candidate": candidate, "reach": reach.model_dump(mode="json", by_alias=True)}
    return channel_document(a_rollout().having("status", status).build(), Delivery())


def seen_by_devices(reach: Reach, fleet: Fleet) -> set[int]:
    """The devices that take the candidate when each of them reads the document by itself."""
    document = document_of(reach)
    return {hashed for hashed in fleet.hashes if is_member(document, fleet.labels_of(hashed), hashed)}


@pytest.mark.parametrize("plan", PLANS, ids=" ".join)
def test_every_fleet_up_to_ten_thousand_is_counted_exactly(plan: tuple[str, ...]) -> None:
    dice, hashes = Random(7), list[int]()
    for count in range(1, 10_001):
        insort(hashes, dice.getrandbits(64))
        before = 0
        for text, widened in zip(plan, walk(Fleet(hashes), *map(percent, plan)), strict=True):
            assert widened.cutoff is not None
            assert not widened.approximate
            reached = bisect_right(hashes, int(widened.cutoff, 16))
            assert reached == max(ceil(Fraction(text[:-1]) * count / 100), min(before + 1, count))
            before = reached
        assert before == count
    assert count == EXACT_DEVICES == 10_000


def test_six_devices_go_by_one_three_and_six() -> None:
    fleet = a_fleet(6)
    reaches = [one.reach for one in walk(fleet, percent("1%"), percent("50%"), percent("100%"))]
    assert [len(seen_by_devices(reach, fleet)) for reach in reaches] == [1, 3, 6]


cohorts = st.lists(
    st.builds(
        lambda share, labels, ids: StepCohort(
            percent=None if share is None else f"{share / 10_000:.4f}%",
            selector=DeviceSelector(match_labels=labels) if labels and share is not None else None,
            device_ids=tuple(ids),
        ),
        st.none() | st.integers(1, 1_000_000),
        st.none() | st.sampled_from([EARLY, {"ring": "late"}, {"ring": "none"}]),
        st.lists(st.sampled_from([device.id for device in an_inventory(50).devices]), max_size=3),
    ),
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(count=st.integers(1, 60), plan=cohorts, held=st.sampled_from(["0%", "1%", "10%", "50%"]))
def test_every_step_adds_a_device_while_any_remain_and_none_ever_leaves(
    count: int, plan: list[StepCohort], held: str
) -> None:
    fleet = a_fleet(count, every(3))
    control = hold_back(held, fleet)
    before: set[int] = set()
    for cohort, widened in zip(plan, walk(fleet, *plan, control=control), strict=True):
        reached = seen_by_devices(widened.reach, fleet)
        assert reached == set(members(widened.reach, fleet))
        assert before <= reached
        labels = dict(cohort.selector.match_labels) if cohort.selector else {}
        held_back = {one for one in fleet.hashes if is_held_back(document_of(widened.reach), one)}
        meant = set(fleet.matching(labels)) - held_back if cohort.percent else set[int]()
        assert reached > before or not meant - before
        assert len(reached & meant) >= ceil(share_of(cohort.percent or "0%") * len(meant))
        before = reached
    complete = walk(fleet, *plan, percent("100%"), control=control)[-1].reach
    held_back = {one for one in fleet.hashes if is_held_back(document_of(complete), one)}
    assert seen_by_devices(complete, fleet) == set(fleet.hashes) - held_back
    assert len(held_back) < count


@settings(max_examples=100, deadline=None)
@given(count=st.integers(2, 200), share=st.integers(1, 500_000))
def test_the_control_is_its_share_rounded_up_but_never_everybody(count: int, share: int) -> None:
    fleet, text = a_fleet(count), f"{share / 10_000:.4f}%"
    control = hold_back(text, fleet)
    held = [one for one in fleet.hashes if is_held_back(document_of(Reach(control=control)), one)]
    assert len(held) == min(ceil(share_of(text) * count), count - 1)


@pytest.mark.parametrize(("count", "held"), [(0, "50%"), (1, "50%"), (100, "0%"), (100, "0.0000%")])
def test_nobody_is_held_back_where_that_is_asked_or_would_leave_none(count: int, held: str) -> None:
    assert hold_back(held, a_fleet(count)) is None


def test_a_ring_is_counted_by_itself() -> None:
    fleet = a_fleet(90, every(3))
    [ring, tenth] = walk(fleet, percent("10%", EARLY), percent("10%"))
    assert len(seen_by_devices(ring.reach, fleet)) == 3
    assert all(fleet.labels_of(one) == EARLY for one in seen_by_devices(ring.reach, fleet))
    queue = list(fleet.hashes)
    assert seen_by_devices(tenth.reach, fleet) == seen_by_devices(ring.reach, fleet) | set(queue[:9])


def test_a_share_is_of_the_devices_that_are_not_held_back() -> None:
    fleet = a_fleet(100)
    [tenth] = walk(fleet, percent("10%"), control=hold_back("50%", fleet))
    assert len(seen_by_devices(tenth.reach, fleet)) == 5


def test_a_ring_of_nobody_adds_nobody() -> None:
    [widened] = walk(a_fleet(10), percent("50%", {"ring": "none"}))
    assert (widened.reach, widened.cutoff) == (Reach(), None)


def test_devices_named_by_id_or_by_hash_are_added_and_never_held_back() -> None:
    fleet = a_fleet(10)
    last, first = fleet.hashes[-1], fleet.hashes[0]
    named = StepCohort(device_ids=(fleet.devices[last].id, hash_hex(first), hash_hex(first)))
    [widened] = walk(fleet, named, control=Control(cutoff="0" * 16))
    assert widened.reach.named == (hash_hex(last), hash_hex(first))
    assert widened.cutoff is None
    assert seen_by_devices(widened.reach, fleet) == {last, first}


def test_one_that_was_named_does_not_count_as_new_again() -> None:
    fleet = a_fleet(10)
    named = StepCohort(device_ids=(hash_hex(fleet.hashes[0]), hash_hex(fleet.hashes[1])))
    [_, widened] = walk(fleet, named, percent("10%"))
    assert seen_by_devices(widened.reach, fleet) == set(fleet.hashes[:3])


def test_edits_during_an_attempt_cannot_make_the_reach_larger_than_a_status_may_be() -> None:
    fleet = a_fleet(20, lambda index: {"ring": str(index)})
    names = [StepCohort(device_ids=tuple(f"{step:08x}{index:08x}" for index in range(200))) for step in range(2)]
    rings = [percent("100%", {"ring": str(index)}) for index in range(20)]
    last = walk(fleet, *names, *rings)[-1]
    assert (len(last.reach.named), len(last.reach.cutoffs), last.cutoff) == (300, 16, None)
    assert Reach.model_validate(last.reach.model_dump()) == last.reach


def test_a_device_that_joins_late_belongs_to_the_last_step() -> None:
    [complete] = walk(a_fleet(5), percent("100%"))
    late = a_fleet(5, seed=99)
    assert seen_by_devices(complete.reach, late) == set(late.hashes)


def test_a_step_keeps_its_devices_when_others_leave() -> None:
    fleet = a_fleet(100)
    [tenth] = walk(fleet, percent("10%"))
    smaller = Fleet(fleet.hashes[50:], fleet.devices)
    again = widen(tenth.reach, percent("10%"), smaller, SALT)
    assert set(fleet.hashes[:10]) <= seen_by_devices(again.reach, fleet)


def test_a_retry_of_the_same_release_exposes_the_same_devices_and_another_release_others() -> None:
    inventory = an_inventory(1000)
    first, retry = (inventory.salted(salt_of("tv/support-bot", SEVENTH)) for _ in range(2))
    other = inventory.salted(salt_of("tv/support-bot", "06" * 32))
    exposed = [
        {fleet.devices[one].id for one in members(walk(fleet, percent("5%"))[0].reach, fleet)}
        for fleet in (first, retry, other)
    ]
    assert exposed[0] == exposed[1]
    assert len(exposed[0]) == 50
    assert len(exposed[0] & exposed[2]) < 15


@pytest.mark.parametrize(
    ("channel", "digest", "want"),
    [
        ("tv/support-bot", "07" * 32, "61d8f95b120ef44d5e9d26c0a060a7fa"),
        ("tv/support-bot", "", "0aa484fc61764a68469ada49ffe8c9af"),
    ],
)
def test_a_salt_is_what_it_has_always_been(channel: str, digest: str, want: str) -> None:
    assert salt_of(channel, digest) == want


@pytest.mark.parametrize(("text", "want"), [("10%", HASHES // 10), ("0.0001%", HASHES // 1_000_000)])
def test_beyond_ten_thousand_the_cut_off_is_a_share_of_all_hashes(text: str, want: int) -> None:
    fleet = a_fleet(EXACT_DEVICES + 1)
    [widened] = walk(fleet, percent(text))
    assert widened.approximate
    assert int(widened.cutoff or "", 16) == want
    assert abs(fleet.up_to(want) - want * len(fleet.hashes) // HASHES) < 150


def test_beyond_ten_thousand_all_are_still_all_and_the_control_is_a_share() -> None:
    fleet = a_fleet(EXACT_DEVICES + 1)
    assert hold_back("25%", fleet) == Control(cutoff="c000000000000000")
    [half, ring, complete] = walk(fleet, percent("50%"), percent("50%", EARLY), percent("100%"))
    assert (half.cutoff, ring.cutoff, complete.cutoff) == ("7" + "f" * 15, "7" + "f" * 15, "f" * 16)
    assert (half.approximate, ring.approximate, complete.approximate) == (True, True, False)


def test_a_cut_off_never_falls_although_the_share_does() -> None:
    fleet = a_fleet(EXACT_DEVICES + 1)
    [_, smaller] = walk(fleet, percent("50%"), percent("10%"))
    assert smaller.cutoff == "7" + "f" * 15
    assert len(smaller.reach.cutoffs) == 1


def test_arms_are_by_assignment_within_the_steps_stratum() -> None:
    fleet = a_fleet(30, every(3))
    [ring] = walk(fleet, percent("50%", EARLY))
    found = arms(ring.reach, fleet, EARLY)
    assert (len(found.treated), len(found.control)) == (5, 5)
    assert {fleet.devices[one].labels["ring"] for one in (*found.treated, *found.control)} == {"early"}
    assert found.treated == {one: fleet.devices[one].id for one in fleet.hashes if one in found.treated}


def test_those_held_back_are_control() -> None:
    fleet = a_fleet(20)
    [complete] = walk(fleet, percent("100%"), control=hold_back("10%", fleet))
    found = arms(complete.reach, fleet, {})
    assert sorted(found.control) == list(fleet.hashes[-2:])
    assert len(found.treated) == 18


@pytest.mark.parametrize(("meant", "want"), [(0, 0), (1, 1), (999, 99), (1000, 100)])
def test_the_share_shown_is_never_all_before_all_are_meant(meant: int, want: int) -> None:
    fleet = a_fleet(1000)
    cutoffs = (Cutoff(cutoff=hash_hex(fleet.hashes[meant - 1])),) if meant else ()
    assert percent_of(Reach(cutoffs=cutoffs), fleet) == want


def test_a_slow_rollback_sends_the_last_of_the_queue_back_first_and_at_most_its_share() -> None:
    fleet = a_fleet(1000, every(2))
    named = StepCohort(device_ids=(hash_hex(fleet.hashes[500]),))
    reach = walk(fleet, named, percent("60%", EARLY), percent("20%"))[-1].reach
    left = [set(members(narrow(reach, done), fleet)) for done in range(0, 101, 10)]
    for before, after in pairwise(left):
        assert after <= before
        gone = before - after - {fleet.hashes[500]}
        assert len(gone) < 130
        assert max(after, default=0) < min(gone, default=HASHES)
    assert left[0] == set(members(reach, fleet))
    assert left[-1] == set()


def test_a_step_of_the_spec_is_read_as_it_is_written() -> None:
    step = Step.model_validate({"cohort": {"percent": "2.5%", "selector": {"matchLabels": EARLY}}})
    assert step.cohort
    assert share_of(step.cohort.percent or "") == Fraction(1, 40)
