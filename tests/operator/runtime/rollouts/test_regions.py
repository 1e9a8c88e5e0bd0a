"""Devices of two regions are counted where they are and added up where the operator looks: by the settings of docs/how-to/large-fleets.md, in real time."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.monitoring import recording
from dram_agent.standing import Arm
from dram_operator.core.rollout.inventory import Group
from dram_operator.core.rollout.observed import Totals
from dram_operator.core.rollout.recording import EVALUATION_SECONDS, RATE_SECONDS
from dram_operator.core.times import stamp
from dram_operator.runtime.rollouts.sight import View
from tests.cluster.prometheus import PrometheusServer
from tests.cluster.remote_write import write
from tests.operator.core.rollout.world import NEW
from tests.operator.runtime.rollouts.recorded_fleet import Device
from tests.operator.runtime.rollouts.test_counted_sight import eyes
from tests.operator.runtime.rollouts.test_sight import at_work

pytestmark = pytest.mark.long

PAGE = Path(__file__).parents[4] / "docs" / "how-to" / "large-fleets.md"
REGIONS = {"eu-1": 8, "us-1": 5}
UNWELL, GAVE_UP = 2, 1
"""Devices of each region that are not well, and that fell back."""
SCRAPE_SECONDS = 5
SECONDS = RATE_SECONDS + 3 * EVALUATION_SECONDS
"""For a whole rate, and for its way."""
WAYS = ("remote write", "federation")


def settings() -> dict[str, Any]:
    """What the page says, as one piece of YAML each: of a region, of one that writes, of the server that federates."""
    blocks = PAGE.read_text().split("```text\n")[1:]
    read = [yaml.safe_load(block.partition("```")[0]) for block in blocks]
    return {name: value for each in read for name, value in each.items()}


def of_a_region(region: str, rules: Path, central: str) -> dict[str, Any]:
    """The page's settings with this region's name, and the addresses of here."""
    (writes,) = settings()["remote_write"]
    return {
        "global": {"external_labels": dict.fromkeys(settings()["global"]["external_labels"], region)},
        "rule_files": [str(rules)],
        "remote_write": [writes | {"url": f"{central}/api/v1/write"}],
    }


def federating(regions: list[PrometheusServer]) -> dict[str, Any]:
    (job,) = settings()["scrape_configs"]
    targets = [server.url.removeprefix("http://") for server in regions]
    return {"scrape_configs": [job | {"static_configs": [{"targets": targets}]}]}


@dataclass
class Central:
    """A server that regions feed, now."""

    server: PrometheusServer

    @property
    def at(self) -> datetime:
        return datetime.now(UTC)

    @property
    def now(self) -> float:
        return time.monotonic()


def devices_of(count: int, ids: list[str]) -> list[Device]:
    found = [Device(ids.pop()) for _ in range(count)]
    for one in found[:UNWELL]:
        one.healthy = False
    return found


def live(region: PrometheusServer, devices: list[Device], stop: threading.Event) -> None:
    """Scrape the devices until it is over."""
    began = time.monotonic() - 400
    host = region.url.removeprefix("http://")
    while not stop.wait(SCRAPE_SECONDS):
        for number, one in enumerate(devices):
            one.run(NEW, began)
            one.live(time.monotonic(), 2, Arm.TREATED, {NEW: number >= len(devices) - GAVE_UP})
        write(host, time.time(), [point for one in devices for point in one.points()])


async def _look(central: Central) -> View:
    begun = stamp(central.at - timedelta(seconds=SECONDS))
    rollout = at_work(startedAt=begun).having("status.candidate.since", begun).build()
    async with eyes(central, exact_devices=4) as sight:
        return await sight.look(rollout)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, View]]:
    """What the operator sees after the first counts that cover a whole rate, on each of the two ways."""
    rules = tmp_path_factory.mktemp("rules") / "recording-rules.yaml"
    rules.write_text(recording.text())
    ids = [f"{number:032x}" for number in range(sum(REGIONS.values()))]
    stop = threading.Event()
    with ExitStack() as stack:
        written = stack.enter_context(PrometheusServer(receives=True))
        regions = [
            stack.enter_context(PrometheusServer(receives=True, config=of_a_region(name, rules, written.url)))
            for name in REGIONS
        ]
        federated = stack.enter_context(PrometheusServer(config=federating(regions)))
        told = [
            threading.Thread(target=live, args=(region, devices_of(count, ids), stop))
            for region, count in zip(regions, REGIONS.values(), strict=True)
        ]
        for thread in told:
            stack.callback(thread.join)
        stack.callback(stop.set)
        for thread in told:
            thread.start()
        time.sleep(SECONDS)
        yield {way: asyncio.run(_look(Central(server))) for way, server in zip(WAYS, (written, federated), strict=True)}


@pytest.mark.parametrize("way", WAYS)
def test_the_regions_devices_are_added_up(views: dict[str, View], way: str) -> None:
    inventory, totals = views[way].inventory, views[way].totals
    assert inventory is not None, views[way].problem
    all_of_them = sum(REGIONS.values())
    assert inventory.groups == (Group(all_of_them),)
    well = all_of_them - (UNWELL + GAVE_UP) * len(REGIONS)
    gave_up = GAVE_UP * len(REGIONS)
    assert totals == Totals(all_of_them, well, gave_up, running={NEW: all_of_them})


@pytest.mark.parametrize("way", WAYS)
def test_a_gate_reads_the_figure_of_all_regions(views: dict[str, View], way: str) -> None:
    latency = next(one for one in views[way].measured if one.name == "latency")
    assert latency.answer.trouble is None
    [figure] = latency.answer.samples
    assert figure.value == pytest.approx(0.0975, rel=0.01), "every request took 0.1 s, in the bucket from 0.05 s"
