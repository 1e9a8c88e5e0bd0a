"""A fleet in one process: the real agent's update, trust and telemetry, against a signed repository behind real HTTP."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dram_agent.document import Cohort, Release
from dram_agent.fleet.draw import draw
from dram_agent.fleet.member import Member, Place
from dram_agent.fleet.run import Fleet
from dram_agent.fleet.scenario import Scenario
from tests.agent.box import CHANNEL
from tests.agent.box import Fleet as Operator

SECONDS = 60


@dataclass
class World:
    """A repository, the devices that follow it, and a clock for all."""

    operator: Operator
    folder: Path
    now: float = 0.0

    def fleet(self, count: int = 4, **group: Any) -> list[Member]:
        usual = {"name": "all", "count": count, "load": {"perHour": 3600, "diurnal": 0}, "spread": 0, **group}
        scenario = Scenario.model_validate({"groups": [usual]})
        place = Place(
            CHANNEL,
            self.operator.site.url,
            self.operator.installation.first_root,
            self.folder,
            wall=lambda: self.operator.installation.clock().timestamp(),
            monotonic=lambda: self.now,
        )
        members = Fleet(scenario, place).members
        for member in members:
            member.boot()
        return members

    def live(self, members: list[Member], seconds: int = SECONDS, polls: int = 1) -> None:
        """Every device polls, then time passes, second by second."""
        for _ in range(polls):
            for member in members:
                member.poll()
            for _ in range(seconds):
                self.now += 1
                self.operator.installation.clock.pass_time(seconds=1)
                for member in members:
                    member.live()


@pytest.fixture
def world(fleet: Operator, tmp_path: Path) -> World:
    return World(fleet, tmp_path / "fleet")


def releases(world: World) -> tuple[Release, Release]:
    return world.operator.release(**{"model.gguf": b"old"}), world.operator.release(**{"model.gguf": b"new"})


def half(members: list[Member], document_salt: str = "00ff") -> str:
    """A cut-off that takes half of the devices."""
    from dram_agent.cohort import device_hash, hash_hex

    hashes = sorted(device_hash(bytes.fromhex(document_salt), member.one.id) for member in members)
    return hash_hex(hashes[len(hashes) // 2 - 1])


def sample(member: Member, name: str, **labels: str) -> float:
    found = [
        one.value
        for family in member.telemetry.collect()
        for one in family.samples
        if one.name == name and labels.items() <= one.labels.items()
    ]
    return sum(found)


def runs(member: Member, release: Release) -> bool:
    return bool(sample(member, "dram_device_info", release=release.digest))


def test_devices_of_the_cohort_take_the_candidate_up_and_the_others_stay(world: World) -> None:
    members = world.fleet()
    stable, candidate = releases(world)
    world.operator.publish(stable)
    world.live(members)
    assert all(runs(member, stable) for member in members)
    world.operator.publish(stable, candidate, cohorts=(Cohort(cutoff=half(members)),))
    world.live(members)
    treated = [member for member in members if runs(member, candidate)]
    assert len(treated) == 2
    assert all(sample(member, "dram_device_info", arm="treated", attempt="1") == 1 for member in treated)
    assert all(sample(member, "dram_device_healthy_seconds") == SECONDS for member in treated)


def test_a_poll_without_news_is_one_conditional_request(world: World) -> None:
    members = world.fleet()
    world.operator.publish(releases(world)[0])
    world.live(members)
    world.operator.site.seen.clear()
    world.live(members)
    assert [(one.path, one.status) for one in world.operator.site.seen] == [("metadata/timestamp.json", 304)] * 4


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"fault": "SmokeTest"}, "smoke"),
        ({"fault": "Crash"}, "crash-loop"),
        ({"fault": "Crash", "afterSeconds": 60}, "crash-loop"),
    ],
)
def test_a_candidate_that_fails_on_the_device_is_given_up(world: World, fault: dict[str, Any], why: str) -> None:
    members = world.fleet(count=2, faults=[fault])
    stable, candidate = releases(world)
    world.operator.publish(stable)
    world.live(members)
    world.operator.publish(stable, candidate)
    world.live(members, polls=3)
    for member in members:
        assert runs(member, stable)
        assert member.updater.state.failed[0].why == why
        assert sample(member, "dram_device_gave_up", release=candidate.digest) == 1


def test_a_crash_after_the_trial_leaves_the_requests_to_the_cloud(world: World) -> None:
    (member,) = world.fleet(count=1, faults=[{"fault": "Crash", "afterSeconds": 400}])
    stable, candidate = releases(world)
    world.operator.publish(stable)
    world.live([member])
    world.operator.publish(stable, candidate)
    world.live([member], polls=9)
    assert runs(member, candidate)
    assert sample(member, "dram_device_healthy") == 0
    assert sample(member, "dram_device_fallbacks_total", cause="unhealthy") > 60


@pytest.mark.parametrize(
    ("fault", "name", "labels", "least"),
    [
        ({"fault": "Errors", "ratio": 0.5}, "dram_device_requests_total", {"outcome": "error"}, 15),
        ({"fault": "Fallback", "ratio": 0.5}, "dram_device_requests_total", {"served_by": "cloud"}, 15),
        ({"fault": "Slow", "factor": 20}, "dram_device_request_seconds_sum", {"served_by": "device"}, 240),
        ({"fault": "Hungry", "factor": 3}, "dram_device_memory_bytes", {}, 1_800_000_000),
    ],
)
def test_what_requests_show_follows_the_scenario(
    world: World, fault: dict[str, Any], name: str, labels: dict[str, str], least: float
) -> None:
    sick = world.fleet(count=1, faults=[fault], stable={"errorRatio": 0, "fallbackRatio": 0})
    stable, candidate = releases(world)
    world.operator.publish(stable)
    world.live(sick, polls=2)
    assert sample(sick[0], name, **labels) < least
    world.operator.publish(stable, candidate)
    world.live(sick)
    assert sample(sick[0], name, release=candidate.digest, **labels) >= least


def test_a_wrong_answer_shows_in_the_golden_ratio(world: World) -> None:
    (member,) = world.fleet(count=1, faults=[{"fault": "Wrong", "ratio": 0.0}])
    stable, candidate = releases(world)
    world.operator.publish(stable, candidate)
    world.live([member])
    assert sample(member, "dram_device_golden_pass_ratio") == 0.0


def test_a_clock_that_is_ahead_refuses_metadata_and_one_that_is_behind_does_not(world: World) -> None:
    ahead = world.fleet(count=1, faults=[{"fault": "ClockSkew", "seconds": 200_000}])
    behind = world.fleet(count=1, name="behind", faults=[{"fault": "ClockSkew", "seconds": -200_000}])
    stable, _ = releases(world)
    world.operator.publish(stable)
    world.live(ahead + behind)
    assert not runs(ahead[0], stable)
    assert sample(ahead[0], "dram_device_refused_metadata_total", cause="expired") == 1


def test_an_offline_device_neither_polls_nor_tells_and_takes_the_present_release_later(world: World) -> None:
    (member,) = world.fleet(count=1, faults=[{"fault": "Offline", "fromSeconds": 0, "untilSeconds": 100}])
    stable, candidate = releases(world)
    world.operator.publish(stable)
    world.live([member])
    assert (member.tells(), world.operator.site.paths()) == (False, [])
    world.operator.publish(candidate)
    world.live([member], polls=2)
    assert member.tells()
    assert runs(member, candidate)


def test_a_silent_device_goes_on_and_tells_nothing(world: World) -> None:
    members = world.fleet(count=4, faults=[{"fault": "Silent", "share": 0.5, "afterSeconds": 30}])
    stable, candidate = releases(world)
    world.operator.publish(stable)
    world.live(members)
    assert all(member.tells() for member in members)
    world.operator.publish(stable, candidate)
    world.live(members)
    assert sum(member.tells() for member in members) == 2
    assert all(runs(member, candidate) for member in members)


async def test_all_tell_at_one_address(world: World, unused_tcp_port: int) -> None:
    stable, _ = releases(world)
    world.operator.publish(stable)
    scenario = Scenario.model_validate({"groups": [{"name": "all", "count": 12}]})
    clock = world.operator.installation.clock
    place = Place(
        CHANNEL, world.operator.site.url, world.operator.installation.first_root, world.folder,
        wall=lambda: clock().timestamp(),
    )  # fmt: skip
    running = asyncio.create_task(Fleet(scenario, place).run(f"127.0.0.1:{unused_tcp_port}"))
    try:
        async with aiohttp.ClientSession() as session:
            told = await _until_all_run(session, unused_tcp_port, stable.digest)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert told == {one.id for one in draw(scenario)}


async def _until_all_run(session: aiohttp.ClientSession, port: int, digest: str) -> set[str]:
    while True:
        try:
            async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                families = list(text_string_to_metric_families(await answer.text()))
        except aiohttp.ClientConnectorError:
            await asyncio.sleep(0.05)
            continue
        assert len({family.name for family in families}) == len(families)
        info = next((family for family in families if family.name == "dram_device_info"), None)
        found = {one.labels["device"] for one in info.samples if one.labels["release"] == digest} if info else set()
        if len(found) == 12:
            return found
        await asyncio.sleep(0.05)
