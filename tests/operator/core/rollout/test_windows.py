"""When a rollout may move forward."""

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from dram_operator.api.rollout_spec import Window
from dram_operator.core.rollout.windows import Opening, WindowInvalid, opening

BERLIN = "Europe/Berlin"
NIGHTLY = Window(schedule="0 2 * * *", duration_seconds=7200, time_zone=BERLIN)
HALF_PAST_TWO = Window(schedule="30 2 * * *", duration_seconds=3600, time_zone=BERLIN)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def starts(window: Window, since: str, until: str) -> list[str]:
    """Every moment at which the window opens, found by asking again whenever it may change."""
    found, now = [], at(since)
    while (told := opening([window], now)).changes_at and told.changes_at < at(until):
        assert told.changes_at > now
        now = told.changes_at
        if opening([window], now).is_open:
            found.append(now.strftime("%m-%dT%H:%M"))
    return found


def test_without_windows_it_is_always_open() -> None:
    assert opening([], at("2026-01-01T00:00")) == Opening(is_open=True, changes_at=None)


@pytest.mark.parametrize(
    ("now", "want", "changes"),
    [
        ("2026-01-10T00:59:59", False, "2026-01-10T01:00"),
        ("2026-01-10T01:00:00", True, "2026-01-10T03:00"),
        ("2026-01-10T02:59:59", True, "2026-01-10T03:00"),
        ("2026-01-10T03:00:00", False, "2026-01-11T01:00"),
        ("2026-07-10T00:30:00", True, "2026-07-10T02:00"),
    ],
)
def test_a_window_opens_by_the_clocks_of_its_zone(now: str, want: bool, changes: str) -> None:
    assert opening([NIGHTLY], at(now)) == Opening(want, at(changes))


def test_a_start_in_the_hour_that_clocks_skip_happens_right_after_it() -> None:
    found = starts(HALF_PAST_TWO, "2026-03-28T00:00", "2026-03-30T12:00")
    assert found == ["03-28T01:30", "03-29T01:00", "03-30T00:30"]


def test_a_start_in_the_hour_that_comes_twice_happens_once() -> None:
    found = starts(HALF_PAST_TWO, "2026-10-24T00:00", "2026-10-26T12:00")
    assert found == ["10-24T00:30", "10-25T00:30", "10-26T01:30"]


@pytest.mark.parametrize(
    ("day", "last"), [("2026-03-29T00:59", "2026-03-29T02:59"), ("2026-10-24T23:59", "2026-10-25T01:59")]
)
def test_a_window_lasts_its_seconds_while_clocks_change(day: str, last: str) -> None:
    assert [opening([NIGHTLY], at(day) + timedelta(minutes=late)).is_open for late in (0, 1)] == [False, True]
    assert [opening([NIGHTLY], at(last) + timedelta(minutes=late)).is_open for late in (0, 1)] == [True, False]


def test_a_clock_that_is_set_back_an_hour_asks_again_as_if_nothing_was() -> None:
    now = at("2026-01-10T01:30")
    before, again = opening([NIGHTLY], now), opening([NIGHTLY], now)
    opening([NIGHTLY], now - timedelta(hours=1))
    assert before == again == Opening(is_open=True, changes_at=at("2026-01-10T03:00"))
    assert not opening([NIGHTLY], now - timedelta(hours=1)).is_open


def test_any_open_window_is_enough_and_the_first_change_counts() -> None:
    noon = Window(schedule="0 12 * * *", duration_seconds=3600)
    assert opening([NIGHTLY, noon], at("2026-01-10T12:30")) == Opening(True, at("2026-01-10T13:00"))
    assert opening([NIGHTLY, noon], at("2026-01-10T10:00")) == Opening(False, at("2026-01-10T12:00"))


def test_windows_that_overlap_keep_it_open() -> None:
    hourly = Window(schedule="0 * * * *", duration_seconds=5400)
    assert all(opening([hourly], at("2026-01-10T00:00") + timedelta(minutes=minute)).is_open for minute in range(600))


CHANGES = [
    (BERLIN, "2026-03-29"),
    (BERLIN, "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-04"),
]


@pytest.mark.parametrize(("zone", "day"), CHANGES, ids=lambda value: value)
@pytest.mark.parametrize("schedule", ["0 2 * * *", "30 1 * * *", "45 2 * * *", "*/20 1-2 * * *", "0 * * * *"])
@pytest.mark.parametrize("minutes", [10, 60, 150])
def test_it_is_open_exactly_while_one_of_its_starts_lasts(zone: str, day: str, schedule: str, minutes: int) -> None:
    lasts, midnight = timedelta(minutes=minutes), at(f"{day}T00:00")
    every_start = CronSim(schedule, (midnight - timedelta(days=2)).astimezone(ZoneInfo(zone)))
    known = list(
        takewhile(lambda start: start < midnight + timedelta(days=2), (one.astimezone(UTC) for one in every_start))
    )
    window = Window(schedule=schedule, duration_seconds=minutes * 60, time_zone=zone)
    for late in range(-600, 1800, 15):
        now = midnight + timedelta(minutes=late)
        assert opening([window], now).is_open is any(start <= now < start + lasts for start in known)


@settings(max_examples=200, deadline=None)
@given(
    moment=st.integers(0, 366 * 86_400).map(lambda seconds: at("2026-01-01T00:00") + timedelta(seconds=seconds)),
    hour=st.integers(0, 23),
    minute=st.integers(0, 59),
    hours=st.integers(1, 30),
    zone=st.sampled_from(["Etc/UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_the_state_holds_until_it_says_that_it_changes(
    moment: datetime, hour: int, minute: int, hours: int, zone: str
) -> None:
    window = Window(schedule=f"{minute} {hour} * * *", duration_seconds=hours * 3600, time_zone=zone)
    told = opening([window], moment)
    assert told.changes_at
    assert told.changes_at > moment
    assert opening([window], told.changes_at - timedelta(seconds=1)).is_open is told.is_open


@pytest.mark.parametrize(("schedule", "want"), [("0 0 29 2 *", "2028-02-29"), ("0 0 * 2 1#5", "2044-02-29")])
def test_a_day_that_is_years_away_is_waited_for(schedule: str, want: str) -> None:
    rare = Window(schedule=schedule, duration_seconds=60)
    assert opening([rare], at("2026-01-10T00:00")) == Opening(False, at(f"{want}T00:00"))


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"time_zone": "Europe/Atlantis"}, "'Europe/Atlantis' is not a time zone that exists"),
        ({"time_zone": "../etc/passwd"}, "'../etc/passwd' is not a time zone that exists"),
        ({"schedule": "0 25 * * *"}, "'0 25 * * *' is not a schedule: Bad hour"),
        ({"schedule": "0 0 31 2 *"}, "'0 0 31 2 *' is not a schedule: Bad day-of-month"),
    ],
)
def test_what_does_not_exist_is_named(change: dict[str, str], want: str) -> None:
    with pytest.raises(WindowInvalid) as refused:
        opening([NIGHTLY.model_copy(update=change)], at("2026-01-10T00:00"))
    assert str(refused.value) == want
