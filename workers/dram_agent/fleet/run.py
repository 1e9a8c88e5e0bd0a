"""A whole fleet in one process: every device polls the real repository at its own pace, and all tell at one `/metrics`."""

import asyncio
import logging
import signal
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from dram_agent.fleet.draw import draw
from dram_agent.fleet.member import Member, Place
from dram_agent.fleet.scenario import Scenario

log = logging.getLogger(__name__)

THREADS = 16
"""Devices that may wait for the repository at once."""
LIVE_SECONDS = 2.0
"""Between two looks at what goes on on a device."""


@dataclass
class Fleet:
    """The devices of a scenario. `live_seconds` is the pace of everything but polls."""

    scenario: Scenario
    place: Place
    live_seconds: float = LIVE_SECONDS
    members: list[Member] = field(init=False)

    def __post_init__(self) -> None:
        self.members = [Member(one, self.place) for one in draw(self.scenario)]

    async def run(self, listen: str) -> None:
        """Poll and tell until it is cancelled."""
        loop = asyncio.get_running_loop()
        runner = web.AppRunner(metrics_app(self.members), access_log=None, shutdown_timeout=1.0)
        with ThreadPoolExecutor(THREADS) as pool:
            loop.set_default_executor(pool)
            await runner.setup()
            try:
                host, _, port = listen.rpartition(":")
                await web.TCPSite(runner, host, int(port)).start()
                await asyncio.to_thread(self.boot)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._live())
                    for member in self.members:
                        tasks.create_task(_follow(member))
            finally:
                await runner.cleanup()

    def boot(self) -> None:
        """Power all devices on."""
        for member in self.members:
            member.boot()

    async def _live(self) -> None:
        while True:
            await asyncio.to_thread(self._look)
            await asyncio.sleep(self.live_seconds)

    def _look(self) -> None:
        for member in self.members:
            member.live()


async def _follow(member: Member) -> None:
    while True:
        seconds = await asyncio.to_thread(member.poll)
        await asyncio.sleep(seconds)


class _All(Collector):
    """The series of all devices that tell, each family once."""

    def __init__(self, members: Iterable[Member]) -> None:
        self._members = tuple(members)

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for member in self._members:
            if member.tells():
                for family in member.telemetry.collect():
                    families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                    families[family.name].samples += family.samples
        return families.values()


def metrics_app(members: Iterable[Member]) -> web.Application:
    """`/metrics` of all devices."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_All(members))

    async def metrics(_: web.Request) -> web.Response:
        body = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app


def run_fleet(scenario: Scenario, place: Place, listen: str) -> None:
    """Run until SIGTERM or SIGINT."""

    async def until_told() -> None:
        task = asyncio.ensure_future(Fleet(scenario, place).run(listen))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            log.info("Told to end")

    asyncio.run(until_told())
