"""Devices that are counted look as if they were listed: two looks at one fleet in a real Prometheus, one each way."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from dram_agent.standing import Arm
from dram_operator.adapters.prometheus import Endpoint, Prometheus
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_status import DeviceCounts
from dram_operator.core.rollout.cohort import salt_of
from dram_operator.core.rollout.course import Course
from dram_operator.core.rollout.document import Delivery
from dram_operator.core.rollout.observed import Observed
from dram_operator.core.times import stamp
from dram_operator.runtime.cache import Key
from dram_operator.runtime.rollouts.sight import ReadList, Sight, View, needs_sight
from tests.builders import ARollout, a_rollout
from tests.operator.core.rollout.world import NEW, OLD, a_release
from tests.operator.runtime.rollouts.recorded_fleet import CHANNEL, START, Device, RecordedFleet, Watched, ids_split_by

KEY = Key("tv", "support-bot", "EdgeRollout")
ATTEMPT, HALF = 7, 2**63 - 1
PRESETS = ("LatencyP50", "LatencyP95", "LatencyP99", "ErrorRatio", "FallbackRatio", "GoldenPassRatio", "MemoryBytes")


def the_rollout() -> EdgeRollout:
    """A rollout whose first step, half of the devices, began at START; every preset has a limit."""
    taken = a_release(NEW).model_dump(mode="json", by_alias=True, exclude_none=True)
    state = {"index": 0, "shown": "1/2", "state": "Updating", "startedAt": stamp(START), "treated": 30, "control": 30}
    reach = {"cutoffs": [{"cutoff": f"{HALF:016x}"}]}
    status = {"attempt": ATTEMPT, "candidate": taken | {"since": stamp(START)}, "step": state, "reach": reach}
    built = ARollout(a_rollout().spec, a_rollout().metadata, status)
    for preset in PRESETS:
        built = built.with_metric(name=preset.lower(), preset=preset, max="1")
    return built.having("spec.strategy.offline", {"afterSeconds": 300}).build()


@dataclass
class Eyes:
    """One sight over the fleet's server."""

    fleet: Watched
    sight: Sight
    woken: "asyncio.Queue[Key]"
    key: Key = KEY

    async def look(self, rollout: EdgeRollout) -> View:
        """The look that is due, or none where nobody has to look."""
        self.sight.view(KEY, rollout)
        if needs_sight(rollout):
            async with asyncio.timeout(60):
                await self.woken.get()
        return self.sight.view(KEY, rollout)


@asynccontextmanager
async def eyes(fleet: Watched, exact_devices: int, read: ReadList | None = None) -> AsyncIterator[Eyes]:
    woken = asyncio.Queue[Key]()
    endpoints = {"default": Prometheus(Endpoint("default", fleet.server.url))}
    sight = Sight(endpoints, woken.put_nowait, lambda: fleet.at, lambda: fleet.now, read, exact_devices)
    try:
        yield Eyes(fleet, sight, woken)
    finally:
        await sight.close()


def counts(rollout: EdgeRollout, view: View, fleet: RecordedFleet) -> DeviceCounts | None:
    """What the engine makes of a look."""
    observed = Observed(rollout, inventory=view.inventory, reports=view.reports, totals=view.totals)
    return Course(observed, Delivery(), fleet.at).counts()


@dataclass
class Scene:
    """Sixty devices, half of them treated."""

    fleet: RecordedFleet

    def __post_init__(self) -> None:
        treated, control = ids_split_by(salt_of(CHANNEL, NEW), HALF, 30, 30)
        self.treated, self.control = [Device(one) for one in treated], [Device(one) for one in control]
        self.gave_up, self.silent, self.offline = self.treated[:2], self.treated[2:3], self.treated[3:6]
        self.treated[6].healthy = False
        for number, one in enumerate(self.treated):
            one.seconds, one.errors, one.cloud = (0.3, 1, 2) if number % 2 else (0.9, 0, 0)
            one.golden, one.memory_bytes = 0.5 + 0.5 * (number % 2), 10**9 + number

    def tick(self) -> None:
        """Half a minute: the attempt begins at 0, two give up at 60 and one falls silent after 90."""
        now, attempt = self.fleet.now, ATTEMPT if self.fleet.now >= 0 else ATTEMPT - 1
        for one in (*self.offline, *self.control[:3]):
            one.silent = now >= -60
        for one in self.silent:
            one.silent = now > 90
        for one in (*self.treated, *self.control):
            is_treated = one in self.treated and attempt == ATTEMPT
            fell_back = one in self.gave_up and now >= 60
            one.run(NEW if is_treated and not fell_back else OLD, now)
            one.live(now, attempt, Arm.TREATED if is_treated else Arm.CONTROL, {NEW: fell_back} if is_treated else {})
        self.fleet.tick([*self.treated, *self.control])


@dataclass
class Pair:
    """The last look of each kind."""

    listed: View
    counted: View
    listed_counts: DeviceCounts | None
    counted_counts: DeviceCounts | None


async def _both(fleet: RecordedFleet) -> Pair:
    rollout, scene = the_rollout(), Scene(fleet)
    fleet.now = -120.0
    async with eyes(fleet, 10_000) as one_by_one, eyes(fleet, 50) as together:
        while True:
            scene.tick()
            if fleet.now >= 0 and fleet.now % 60 == 0:
                views = await one_by_one.look(rollout), await together.look(rollout)
            if fleet.now == 600:
                return Pair(*views, *(counts(rollout, view, fleet) for view in views))
            fleet.go()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with RecordedFleet() as fleet:
        yield asyncio.run(_both(fleet))


def test_the_same_devices_count_the_same(pair: Pair) -> None:
    want = DeviceCounts(known=60, expected=27, reporting=26, healthy=23, failed=3, offline=3)
    assert pair.listed_counts == want
    assert pair.counted_counts == want


def test_one_look_lists_and_the_other_counts(pair: Pair) -> None:
    assert (pair.listed.totals, pair.counted.reports) == (None, None)
    assert pair.counted.totals is not None
    assert pair.counted.totals.running == {NEW: 24, OLD: 29}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_finds_the_same_figure(pair: Pair, preset: str) -> None:
    listed, counted = (
        next(one for one in view.measured if one.name == preset.lower()) for view in (pair.listed, pair.counted)
    )
    assert (listed.answer.trouble, counted.answer.trouble) == (None, None)
    [one], [other] = listed.answer.samples, counted.answer.samples
    assert other.value == pytest.approx(one.value, rel=0.01)
    assert counted.answer.support == pytest.approx(listed.answer.support, rel=0.15)
    assert counted.answer.newest == listed.answer.newest
    assert ":" in counted.query
    assert ":" not in listed.query
