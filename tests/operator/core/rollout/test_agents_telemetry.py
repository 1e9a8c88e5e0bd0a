"""The device agent's own series, through a real Prometheus: the operator understands what devices say."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from dram_agent.standing import Arm, Standing
from dram_agent.telemetry import NONE, Identity, Telemetry
from dram_operator.adapters.prometheus import Endpoint, Prometheus
from dram_operator.core.rollout.inventory import Device
from dram_operator.core.rollout.observed import DeviceReport
from dram_operator.core.rollout.telemetry import Memory, Subject, Told, list_selector, questions, remembered
from tests.cluster.prometheus import PrometheusServer

NOW = datetime(2030, 5, 1, 12, tzinfo=UTC)
OLD, NEW = "1" * 64, "2" * 64
CHANNEL = "tv/bot"
WELL, FAILED, EMPTY = "a" * 32, "b" * 32, "c" * 32
SUBJECT = Subject(CHANNEL, NEW, attempt=3, attempt_since=NOW - timedelta(minutes=10))
SCRAPE_SECONDS = 15


class Scrapes:
    """What a Prometheus would have taken from agents, with the times of the scrapes."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}

    def take(self, telemetry: Telemetry, seconds_ago: int) -> None:
        for family in telemetry.collect():
            if family.type == "gauge":
                for sample in family.samples:
                    labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                    line = f"{sample.name}{{{labels}}} {sample.value} {NOW.timestamp() - seconds_ago:.0f}"
                    self._lines.setdefault(family.name, []).append(line)

    def text(self) -> str:
        """All of it; the samples of a series one after the other."""
        ordered = (
            [f"# TYPE {name} gauge", *sorted(lines, key=lambda line: (line.split("}")[0], float(line.split()[-1])))]
            for name, lines in self._lines.items()
        )
        return "\n".join([*(line for family in ordered for line in family), "# EOF\n"])


def agent(device: str) -> Telemetry:
    return Telemetry(Identity(CHANNEL, device, "pi5", "1.2", {"ring": "early"}))


def history() -> str:
    """One device took the candidate up 300 s ago; one gave it up again after a minute; one has no model at all."""
    scrapes, well, failed, empty = Scrapes(), agent(WELL), agent(FAILED), agent(EMPTY)
    for ago in range(600, -1, -SCRAPE_SECONDS):
        on_candidate = ago <= 300
        tell(well, NEW if on_candidate else OLD, 300 - ago if on_candidate else 1200 - ago)
        tell(failed, NEW if 240 < ago <= 300 else OLD, (300 if ago > 240 else 240) - ago, gave_up=ago <= 240)
        empty.show_standing(Standing(3, Arm.TREATED, {NEW: False, OLD: False}))
        for each in (well, failed, empty):
            scrapes.take(each, ago)
    return scrapes.text()


def tell(telemetry: Telemetry, release: str, age: float, *, gave_up: bool = False) -> None:
    if telemetry.release != release:
        telemetry.use(release)
    telemetry.show_standing(Standing(3, Arm.TREATED, {NEW: gave_up, OLD: False}, release, age))
    telemetry.show_health(max(0.0, age - 20), 1 << 30)


@pytest.fixture(scope="module")
def server() -> Iterator[PrometheusServer]:
    with PrometheusServer(history()) as running:
        yield running


@pytest.fixture(scope="module")
def seen(server: PrometheusServer) -> Memory:
    async def ask() -> Told:
        client, asked = Prometheus(Endpoint("default", server.url)), questions(SUBJECT, Memory(), NOW)
        assert asked.activated is not None
        assert asked.gave_up is not None
        try:
            return Told(
                NOW,
                await client.query(asked.seen, NOW),
                await client.query(asked.healthy, NOW),
                await client.query(asked.activated, NOW),
                await client.query(asked.gave_up, NOW),
                await client.series(list_selector(SUBJECT), NOW - timedelta(days=30), NOW),
            )
        finally:
            await client.close()

    told = asyncio.run(ask())
    assert told.trouble is None
    return remembered(Memory(), told, SUBJECT)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_devices_are_known_with_their_class_and_labels(seen: Memory) -> None:
    assert seen.inventory().devices == tuple(
        Device(name, {"ring": "early"}, "pi5", last_seen=NOW) for name in (WELL, FAILED, EMPTY)
    )


def test_a_device_that_is_well_says_so(seen: Memory) -> None:
    assert seen.reports(SUBJECT)[WELL] == DeviceReport(
        NOW, NEW, healthy_since=ago(280), activated_at=ago(300), excused=True
    )


def test_a_device_that_fell_back_says_so_and_when_it_had_begun(seen: Memory) -> None:
    assert seen.reports(SUBJECT)[FAILED] == DeviceReport(
        NOW, OLD, healthy_since=ago(220), activated_at=ago(300), gave_up_on=NEW, excused=True
    )


def test_a_device_without_a_model_runs_no_release(seen: Memory) -> None:
    assert seen.reports(SUBJECT)[EMPTY] == DeviceReport(NOW, excused=True)
    assert NONE == "none"
