"""What devices are told, and how a lost status comes back from it."""

import json
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dram_agent.cohort import hash_hex, is_held_back, release_for
from dram_agent.document import ChannelDocument, Cohort, Control
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_spec import Step
from dram_operator.api.rollout_status import EdgeRolloutStatus, Quarantine, Reach, RollbackStatus
from dram_operator.core.rollout.cohort import hold_back, percent_of, salt_of, widen
from dram_operator.core.rollout.document import (
    Delivery,
    adopt,
    channel_document,
    is_empty,
    step_at_work,
)
from dram_operator.core.rollout.inventory import Fleet
from tests.builders import a_rollout
from tests.operator.api.rollout_statuses import A_FULL_STATUS, BAD, NOW, SEVENTH, SIXTH, a_release_status
from tests.operator.core.rollout.fleets import SALT, a_fleet, every

CHANNEL = "tv/support-bot"
AT_WORK = A_FULL_STATUS.model_copy(update={"rollback": None})
LATER = datetime(2026, 2, 1, tzinfo=UTC)


def a_rollout_with(status: EdgeRolloutStatus) -> EdgeRollout:
    return a_rollout().build().model_copy(update={"status": status})


def document_of(status: EdgeRolloutStatus, delivery: Delivery | None = None) -> ChannelDocument:
    return channel_document(a_rollout_with(status), delivery or Delivery())


def rolling_back(percent: int = 100, *, completed: bool = False) -> EdgeRolloutStatus:
    rollback = RollbackStatus(
        digest=SEVENTH,
        reason="MetricBreached",
        started_at=NOW,
        percent=percent,
        completed_at=NOW if completed else None,
    )
    held = (*AT_WORK.quarantined, Quarantine(digest=SEVENTH, reason="MetricBreached", since=NOW))
    return AT_WORK.model_copy(update={"rollback": rollback, "quarantined": held})


def test_it_says_what_the_status_says() -> None:
    document = document_of(AT_WORK)
    assert document == ChannelDocument(
        channel=CHANNEL,
        attempt=7,
        salt=salt_of(CHANNEL, SEVENTH),
        cohorts=(
            Cohort(hashes=("00000000000000ff",)),
            Cohort(cutoff="7fffffffffffffff", match_labels={"ring": "early"}),
            Cohort(cutoff="0fffffffffffffff"),
        ),
        control=Control(cutoff="f000000000000000"),
        stable=a_release_status(6, SIXTH).release,
        candidate=a_release_status(7, SEVENTH).release,
        denied=(BAD,),
        poll_seconds=300,
        active_poll_seconds=60,
        backoff_seconds=3600,
        candidate_lease_seconds=86_400,
    )


def test_how_devices_ask_comes_from_the_installation() -> None:
    delivery = Delivery(
        poll_seconds=10, active_poll_seconds=5, backoff_seconds=20, candidate_lease_seconds=30, frozen=True
    )
    told = json.loads(document_of(AT_WORK, delivery).encode())
    assert {key: value for key, value in told.items() if key.endswith("Seconds") or key == "frozen"} == {
        "pollSeconds": 10,
        "activePollSeconds": 5,
        "backoffSeconds": 20,
        "candidateLeaseSeconds": 30,
        "frozen": True,
    }


def test_without_a_candidate_nobody_is_in_a_cohort_or_held_back() -> None:
    document = document_of(AT_WORK.model_copy(update={"candidate": None}))
    assert (document.candidate, document.cohorts, document.control) == (None, (), None)
    assert document.salt == salt_of(CHANNEL, SIXTH)


def test_a_new_channel_serves_from_the_cloud() -> None:
    document = document_of(EdgeRolloutStatus())
    assert (document.stable, document.candidate, document.denied, document.attempt) == (None, None, (), 0)
    assert document.salt == salt_of(CHANNEL, "")


@pytest.mark.parametrize("status", [rolling_back(), rolling_back(30, completed=True)])
def test_a_rollback_takes_the_candidate_from_all_and_denies_it(status: EdgeRolloutStatus) -> None:
    document = document_of(status)
    assert (document.candidate, document.cohorts, document.control) == (None, (), None)
    assert document.denied == (BAD, SEVENTH)
    assert document.salt == salt_of(CHANNEL, SIXTH)
    assert release_for(document, {}, 0) == document.stable


def test_a_slow_rollback_denies_the_candidate_only_when_nobody_is_meant_any_more() -> None:
    document = document_of(rolling_back(10))
    assert document.candidate
    assert (document.denied, document.withdrawing) == ((BAD,), True)
    assert document.salt == salt_of(CHANNEL, SEVENTH)
    assert [cohort.cutoff for cohort in document.cohorts] == ["6666666666666666", "0fffffffffffffff"]
    early = {"ring": "early"}
    assert release_for(document, early, int("6666666666666666", 16)) == document.candidate
    assert release_for(document, early, int("6666666666666667", 16)) == document.stable
    done = document_of(rolling_back(51))
    assert (done.candidate, done.denied, done.withdrawing) == (None, (BAD, SEVENTH), False)


def test_a_rollback_of_another_release_leaves_the_candidate_alone() -> None:
    assert document_of(A_FULL_STATUS).candidate == document_of(AT_WORK).candidate


def test_stable_is_never_denied() -> None:
    held = AT_WORK.model_copy(update={"quarantined": (Quarantine(digest=SIXTH, reason="Aborted", since=NOW),)})
    assert document_of(held).denied == ()


def test_equal_statuses_make_equal_bytes() -> None:
    again = EdgeRolloutStatus.model_validate_json(AT_WORK.model_dump_json(by_alias=True))
    assert document_of(again).encode() == document_of(AT_WORK).encode()


@pytest.mark.parametrize(
    "status",
    [AT_WORK, AT_WORK.model_copy(update={"candidate": None}), rolling_back(), rolling_back(10), EdgeRolloutStatus()],
)
def test_a_lost_status_comes_back_from_the_document(status: EdgeRolloutStatus) -> None:
    signed = document_of(status)
    adopted = adopt(ChannelDocument.decode(signed.encode()), LATER)
    assert document_of(adopted) == signed


def test_quarantine_survives_the_loss_of_status() -> None:
    adopted = adopt(document_of(rolling_back()), LATER)
    assert [one.digest for one in adopted.quarantined] == [BAD, SEVENTH]
    assert {one.reason for one in adopted.quarantined} == {"Adopted"}
    assert adopted.candidate is None


def test_what_was_adopted_says_since_when_and_that_its_source_is_not_known() -> None:
    adopted = adopt(document_of(AT_WORK), LATER)
    assert adopted.stable
    assert (adopted.stable.name, adopted.stable.since, adopted.stable.source) == (
        SIXTH[:12],
        "2026-02-01T00:00:00Z",
        None,
    )


def test_only_a_status_that_says_nothing_of_the_channel_is_empty() -> None:
    assert is_empty(EdgeRolloutStatus(observed_generation=3))
    for field in ("attempt", "stable", "candidate", "quarantined"):
        assert not is_empty(EdgeRolloutStatus().model_copy(update={field: getattr(AT_WORK, field)}))


_STEPS: tuple[dict[str, object], ...] = (
    {"cohort": {"deviceIds": ["00000000000000ff"]}},
    {"pause": {}},
    {"cohort": {"percent": "50%", "selector": {"matchLabels": {"ring": "early"}}}},
    {"cohort": {"percent": "10%"}},
    {"pause": {}},
    {"cohort": {"percent": "100%"}},
)
STEPS = tuple(map(Step.model_validate, _STEPS))


@pytest.mark.parametrize(("done", "want"), [(0, None), (1, 0), (2, 0), (3, 2), (4, 3), (5, 3), (6, 5)])
def test_an_adopted_rollout_goes_on_with_the_step_that_was_signed(done: int, want: int | None) -> None:
    fleet = a_fleet(90, every(3))
    reach = Reach(control=hold_back("10%", fleet))
    for step in STEPS[:done]:
        reach = widen(reach, step.cohort, fleet, SALT).reach if step.cohort else reach
    assert step_at_work(STEPS, reach, fleet, SALT) == want


@settings(max_examples=100, deadline=None)
@given(
    status=st.sampled_from([AT_WORK, rolling_back(), rolling_back(10), rolling_back(10, completed=True)]),
    hashed=st.integers(0, (1 << 64) - 1),
    ring=st.sampled_from(["early", "late"]),
)
def test_no_device_is_ever_told_to_run_what_is_denied(status: EdgeRolloutStatus, hashed: int, ring: str) -> None:
    document = document_of(status)
    release = release_for(document, {"ring": ring}, hashed)
    assert release
    assert release.digest not in document.denied
    if is_held_back(document, hashed):
        assert release == document.stable


def test_status_and_document_are_as_small_for_a_million_devices_as_for_ten() -> None:
    dice = Random(3)
    sizes = []
    for count in (10, 10_000, 1_000_000):
        fleet = Fleet(sorted(dice.getrandbits(64) for _ in range(count)))
        reach = Reach(control=hold_back("10%", fleet))
        for step in STEPS:
            reach = widen(reach, step.cohort, fleet, SALT).reach if step.cohort else reach
        assert percent_of(reach, fleet) == 90
        status = AT_WORK.model_copy(update={"reach": reach})
        sizes.append((len(status.model_dump_json()), len(document_of(status).encode())))
    smallest, *others = sizes
    assert all(other[0] <= smallest[0] + 100 and other[1] <= smallest[1] + 100 for other in others)


def test_a_named_device_keeps_its_hash_in_the_document() -> None:
    fleet = a_fleet(3)
    device = fleet.devices[fleet.hashes[0]]
    step = Step.model_validate({"cohort": {"deviceIds": [device.id]}})
    assert step.cohort
    reach = widen(Reach(), step.cohort, fleet, SALT).reach
    document = document_of(AT_WORK.model_copy(update={"reach": reach}))
    assert document.cohorts == (Cohort(hashes=(hash_hex(fleet.hashes[0]),)),)
