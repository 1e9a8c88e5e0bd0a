"""What devices told, asked of a real Prometheus: who is there, what each runs, since when it is well, and what it gave up on."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dram_operator.adapters.prometheus import Endpoint, Prometheus
from dram_operator.core.rollout.answers import Answer, Sample, Trouble
from dram_operator.core.rollout.inventory import Inventory
from dram_operator.core.rollout.observed import DeviceReport
from dram_operator.core.rollout.telemetry import (
    LIST_SECONDS,
    LONGEST_HORIZON_SECONDS,
    Memory,
    Subject,
    Told,
    list_selector,
    questions,
    remembered,
)
from tests.cluster.prometheus import PrometheusServer

NOW = datetime(2030, 5, 1, 12, tzinfo=UTC)
OLD, NEW = "1" * 64, "2" * 64
CHANNEL = "tv/bot"
SUBJECT = Subject(CHANNEL, NEW, attempt=7, attempt_since=NOW - timedelta(hours=1), silence_seconds=3600)


class Book:
    """Samples to write, in OpenMetrics."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}

    def device(
        self,
        name: str,
        release: str,
        first: int,
        last: int,
        *,
        activated: int | None = None,
        healthy: int | None = None,
        attempt: int = 7,
        channel: str = CHANNEL,
        gave_up: str | None = None,
        ring: str = "late",
    ) -> "Book":
        """A device that told the same from one second before NOW to another, once a minute."""
        own = f'channel="{channel}",device="{name}"'
        for ago in range(first, last - 1, -60):
            info = f'release="{release}",attempt="{attempt}",arm="treated",device_class="",label_ring="{ring}"'
            self._add("dram_device_info", f"{own},{info}", 1, ago)
            since = first if activated is None else activated
            self._add("dram_device_release_seconds", f'{own},release="{release}"', since - ago, ago)
            well = 0 if healthy is None or healthy < ago else healthy - ago
            self._add("dram_device_healthy_seconds", f'{own},release="{release}"', well, ago)
            if gave_up:
                self._add("dram_device_gave_up", f'{own},release="{gave_up}"', 1, ago)
        return self

    def text(self) -> str:
        families = ([f"# TYPE {name} gauge", *sorted(lines, key=_when)] for name, lines in self._lines.items())
        return "\n".join([*(line for family in families for line in family), "# EOF\n"])

    def _add(self, name: str, labels: str, value: float, ago: int) -> None:
        self._lines.setdefault(name, []).append(f"{name}{{{labels}}} {value} {NOW.timestamp() - ago:.0f}")


def _when(line: str) -> tuple[str, float]:
    return line.split("}", maxsplit=1)[0], float(line.rsplit(maxsplit=1)[-1])


DAY = 86_400
HISTORY = (
    Book()
    .device("live", NEW, 1800, 0, activated=1800, healthy=1700)
    .device("sick", NEW, 1800, 0, activated=1800)
    .device("silent", NEW, 3000, 2400, activated=3000, healthy=2900)
    .device("short-lived", NEW, 3580, 3520)
    .device("fell-back", NEW, 3300, 2700, activated=3300, healthy=3300)
    .device("fell-back", OLD, 2640, 0, activated=2640, healthy=2640, gave_up=NEW)
    .device("earlier", OLD, 4200, 3660, attempt=6, gave_up=NEW)
    .device("earlier", OLD, 3540, 0, healthy=3540)
    .device("long-gone", OLD, 10 * DAY, 10 * DAY - 600, attempt=2, ring="early")
    .device("stranger", NEW, 600, 0, channel="tv/other")
    .text()
)


@pytest.fixture(scope="module")
def server() -> Iterator[PrometheusServer]:
    with PrometheusServer(HISTORY) as running:
        yield running


def look(server: PrometheusServer, subject: Subject, memory: Memory, at: datetime) -> Memory:
    """One look, as the operator takes it."""

    async def ask() -> Told:
        client = Prometheus(Endpoint("default", server.url))
        asked = questions(subject, memory, at)
        texts = (asked.seen, asked.healthy, asked.activated, asked.gave_up)
        try:
            seen, healthy, activated, gave_up = [await client.query(text, at) if text else Answer() for text in texts]
            since = at - timedelta(seconds=subject.lookback_seconds)
            listed = await client.series(list_selector(subject), since, at) if memory.is_list_due(at) else None
        finally:
            await client.close()
        return Told(at, seen, healthy, activated, gave_up, listed)

    told = asyncio.run(ask())
    assert told.trouble is None
    return remembered(memory, told, subject)


@pytest.fixture(scope="module")
def first(server: PrometheusServer) -> Memory:
    return look(server, SUBJECT, Memory(), NOW)


def heard(reports: dict[str, DeviceReport]) -> dict[str, DeviceReport]:
    """The same from telemetry that has been whole for long."""
    return {device: replace(report, excused=False) for device, report in reports.items()}


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def names(inventory: Inventory) -> list[str]:
    return [device.id for device in inventory.devices]


def test_every_device_of_the_look_back_is_known_and_nobody_elses(first: Memory) -> None:
    inventory = first.inventory()
    assert names(inventory) == ["earlier", "fell-back", "live", "long-gone", "short-lived", "sick", "silent"]
    assert {device.id: device.labels for device in inventory.devices}["long-gone"] == {"ring": "early"}


def test_a_shorter_look_back_forgets(server: PrometheusServer) -> None:
    subject = replace(SUBJECT, lookback_seconds=DAY)
    assert "long-gone" not in names(look(server, subject, Memory(), NOW).inventory())


def test_a_device_that_stays_away_for_the_look_back_is_forgotten(first: Memory) -> None:
    later = NOW + timedelta(seconds=SUBJECT.lookback_seconds + 1)
    nobody = Told(later, Answer(), listed=Answer())
    assert remembered(first, nobody, SUBJECT).inventory().known == 0
    soon = Told(NOW + timedelta(seconds=60), Answer())
    assert remembered(first, soon, SUBJECT).inventory() == first.inventory()


def test_a_device_tells_what_it_runs_and_since_when(first: Memory) -> None:
    assert first.reports(SUBJECT)["live"] == DeviceReport(
        last_seen=NOW, release=NEW, healthy_since=ago(1700), activated_at=ago(1800), excused=True
    )


def test_an_age_of_none_is_no_health(first: Memory) -> None:
    assert first.reports(SUBJECT)["sick"].healthy_since is None


def test_a_silent_device_keeps_its_last_word_to_the_second(first: Memory) -> None:
    report = first.reports(SUBJECT)["silent"]
    assert (report.last_seen, report.release, report.activated_at) == (ago(2400), NEW, ago(3000))


def test_one_that_fell_silent_in_the_attempts_first_minutes_was_exposed_all_the_same(first: Memory) -> None:
    """Minutes in which words of before the attempt are still the present ones."""
    report = first.reports(SUBJECT)["short-lived"]
    assert (report.last_seen, report.release, report.activated_at) == (ago(3520), NEW, ago(3580))


def test_a_device_that_fell_back_was_exposed_all_the_same(first: Memory) -> None:
    report = first.reports(SUBJECT)["fell-back"]
    assert (report.release, report.activated_at, report.gave_up_on) == (OLD, ago(3300), NEW)


def test_an_earlier_attempt_of_the_same_release_is_another_story(first: Memory) -> None:
    assert first.reports(SUBJECT)["earlier"].gave_up_on is None


def test_one_that_was_only_listed_has_no_report(first: Memory) -> None:
    assert "long-gone" not in first.reports(SUBJECT)


def test_one_device_with_an_attempt_beyond_all_numbers_hides_no_other_one() -> None:
    attempts = {"odd": "9" * 5000, "fine": "7"}
    listed = Answer(tuple(Sample({"device": name, "attempt": each}, 1.0) for name, each in attempts.items()))
    assert names(remembered(Memory(), Told(NOW, Answer(), listed=listed), SUBJECT).inventory()) == ["fine", "odd"]


def test_later_looks_ask_for_what_is_new_and_remember_the_rest(server: PrometheusServer) -> None:
    memory = look(server, SUBJECT, Memory(), ago(1200))
    asked = questions(SUBJECT, memory, ago(1140))
    assert "[" not in f"{asked.seen}{asked.activated}{asked.gave_up}"
    late = questions(SUBJECT, memory, ago(600))
    assert "[900s:300s]" in late.seen
    for minute in range(19, -1, -1):
        memory = look(server, SUBJECT, memory, ago(60 * minute))
    assert memory.reports(SUBJECT) == heard(look(server, SUBJECT, Memory(), NOW).reports(SUBJECT))


def test_what_a_new_attempt_is_about_starts_anew(server: PrometheusServer, first: Memory) -> None:
    reports = look(server, replace(SUBJECT, attempt=8), first, NOW).reports(SUBJECT)
    assert {report.activated_at for report in reports.values()} == {None}
    assert {report.gave_up_on for report in reports.values()} == {None}


def test_a_look_after_an_outage_finds_what_was_told_meanwhile(server: PrometheusServer) -> None:
    before = look(server, SUBJECT, Memory(), ago(3240))
    assert look(server, SUBJECT, before, NOW).reports(SUBJECT) == look(server, SUBJECT, Memory(), NOW).reports(SUBJECT)


def test_right_after_the_attempts_start_old_words_do_not_count(server: PrometheusServer) -> None:
    """At 3540 s ago the device takes part in the attempt, and its word of 3660 s ago is still the present one."""
    subject = replace(SUBJECT, attempt_since=ago(3600))
    assert look(server, subject, Memory(), ago(3540)).reports(SUBJECT)["earlier"].gave_up_on is None


def test_no_query_looks_further_back_than_a_day_nor_at_many_points() -> None:
    old = replace(SUBJECT, attempt_since=NOW - timedelta(days=40), silence_seconds=90 * DAY)
    asked = questions(old, Memory(), NOW)
    texts = (asked.seen, asked.activated or "", asked.gave_up or "")
    ranges = [[(int(span), int(step)) for span, step in re.findall(r"\[(\d+)s:(\d+)s\]", text)] for text in texts]
    assert ranges == [
        [(7200, 300), (LONGEST_HORIZON_SECONDS, 1800)],
        [(LONGEST_HORIZON_SECONDS, 3600)],
        [(LONGEST_HORIZON_SECONDS, 3600)],
    ]


def test_without_a_candidate_only_presence_is_asked_for() -> None:
    asked = questions(Subject(CHANNEL), Memory(), NOW)
    assert (asked.activated, asked.gave_up) == (None, None)


def test_the_list_is_asked_for_once_an_hour(first: Memory) -> None:
    assert Memory().is_list_due(NOW)
    assert not first.is_list_due(NOW + timedelta(seconds=LIST_SECONDS - 1))
    assert first.is_list_due(NOW + timedelta(seconds=LIST_SECONDS))
    assert first.is_list_due(NOW - timedelta(seconds=LIST_SECONDS)), "the clock was set back"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 1e300])
def test_moments_that_cannot_be_are_no_moments(value: float) -> None:
    labels = {"device": "a", "release": NEW}
    bad = Answer((Sample(labels, value),))
    told = Told(NOW, Answer((Sample(labels, NOW.timestamp()),)), bad, bad, Answer())
    report = remembered(Memory(), told, SUBJECT).reports(SUBJECT)["a"]
    assert (report.healthy_since, report.activated_at) == (None, None)
    assert remembered(Memory(), replace(told, seen=bad), SUBJECT).reports(SUBJECT) == {}


def test_series_without_a_device_tell_nothing() -> None:
    seen = Answer((Sample({"release": NEW}, NOW.timestamp()),))
    memory = remembered(Memory(), Told(NOW, seen, seen, seen, seen, seen), SUBJECT)
    assert memory.reports(SUBJECT) == {}
    assert memory.inventory().known == 0


def test_one_trouble_spoils_the_look() -> None:
    fine, broken = Answer(), Answer(trouble=Trouble.TIMED_OUT)
    assert Told(NOW, fine, fine, fine, fine).trouble is None
    for told in (Told(NOW, broken), Told(NOW, fine, broken), Told(NOW, fine, fine, fine, fine, broken)):
        assert told.trouble is Trouble.TIMED_OUT


class TestInterruptions:
    """Rule 2: an outage is no device's fault."""

    def looks(self, *moments: int, seen: int | None = None) -> bool:
        """Looks at so many seconds, with a device that was seen at each of them or at one moment; whether it is excused in the end."""
        memory = Memory()
        for moment in moments:
            at, last = NOW + timedelta(seconds=moment), NOW + timedelta(seconds=moment if seen is None else seen)
            told = Told(at, Answer((Sample({"device": "a", "release": NEW}, last.timestamp()),)))
            memory = remembered(memory, told, SUBJECT)
        return memory.reports(SUBJECT)["a"].excused

    def test_after_a_restart_nobody_is_blamed_for_three_intervals(self) -> None:
        assert self.looks(0)
        assert self.looks(0, 60, 120)
        assert not self.looks(0, 60, 120, 180)

    def test_a_look_that_was_missed_begins_the_grace_anew(self) -> None:
        assert self.looks(0, 60, 120, 180, 300)
        assert not self.looks(0, 60, 120, 180, 300, 360, 420, 480)

    def test_looks_that_hear_of_nobody_do_not_blame_anybody(self) -> None:
        assert not self.looks(0, 60, 120, 180, seen=0)
        assert self.looks(0, 60, 120, 180, 240, seen=0)
