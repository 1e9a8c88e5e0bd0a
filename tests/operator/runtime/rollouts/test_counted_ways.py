"""Listed or counted: which way a look takes, that it stays on it for an attempt, and that counts which cannot be are none."""

import json
from collections.abc import Iterator
from math import nan

import pytest

from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.core.rollout.decide import decide
from dram_operator.core.rollout.document import Delivery
from dram_operator.core.rollout.inventory import Group
from dram_operator.core.rollout.observed import Observed, Totals
from dram_operator.core.rollout.recording import AGES, COUNTS, KNOWN
from dram_operator.core.times import stamp
from dram_operator.runtime.rollouts.sight import View
from tests.cluster.remote_write import write
from tests.operator.core.rollout.world import NEW, OLD, a_release
from tests.operator.runtime.rollouts.recorded_fleet import CHANNEL, RecordedFleet, Watched
from tests.operator.runtime.rollouts.test_counted_sight import eyes
from tests.operator.runtime.rollouts.test_sight import at_work

EXACT = 10_000


@pytest.fixture(scope="module")
def server() -> Iterator[RecordedFleet]:
    with RecordedFleet() as running:
        yield running


@pytest.fixture
def fleet(server: RecordedFleet) -> RecordedFleet:
    """Later than every test before."""
    server.now += 7200
    return server


def tell(fleet: RecordedFleet, known: float, healthy: float = 0) -> None:
    """What regions have recorded, a minute later."""
    fleet.now += 60
    own = {"channel": CHANNEL, "region": "north"}
    points = [({"__name__": KNOWN, **own, "within": str(age)}, known) for age in AGES]
    arm = {"attempt": "2", "arm": "treated", "release": NEW, "within": "180"}
    points += [({"__name__": COUNTS, **own, **arm, "state": state}, healthy) for state in ("reporting", "healthy")]
    write(fleet.server.url.removeprefix("http://"), fleet.at.timestamp(), points)


def a_rollout_at_work(fleet: Watched, attempt: int = 2, *, approximate: bool = False) -> EdgeRollout:
    begun = stamp(fleet.at)
    made = at_work(startedAt=begun, approximate=approximate).having("status.attempt", attempt)
    return made.having("status.candidate.since", begun).build()


def is_counted(view: View) -> bool:
    assert (view.totals is None) != (view.reports is None)
    return view.totals is not None


@pytest.mark.parametrize(("known", "want"), [(EXACT, False), (EXACT + 1, True)])
async def test_devices_are_counted_where_counts_say_that_they_are_too_many(
    fleet: RecordedFleet, known: int, *, want: bool
) -> None:
    tell(fleet, known)
    async with eyes(fleet, EXACT) as sight:
        assert is_counted(await sight.look(a_rollout_at_work(fleet))) is want


async def test_a_fleet_near_the_limit_stays_on_its_way_for_an_attempt(fleet: RecordedFleet) -> None:
    first, second = a_rollout_at_work(fleet), a_rollout_at_work(fleet, attempt=3)
    async with eyes(fleet, EXACT) as sight:
        ways = []
        for known, rollout in ((10_001, first), (9_999, first), (9_999, second), (10_001, second)):
            tell(fleet, known)
            ways.append(is_counted(await sight.look(rollout)))
    assert ways == [True, True, False, False]


async def test_after_a_restart_a_step_that_was_shared_out_by_hashes_goes_on_so(fleet: RecordedFleet) -> None:
    tell(fleet, 9_000)
    async with eyes(fleet, EXACT) as sight:
        assert is_counted(await sight.look(a_rollout_at_work(fleet, approximate=True)))


async def test_a_count_that_is_no_number_shows_nobody(fleet: RecordedFleet) -> None:
    rollout = a_rollout_at_work(fleet)
    async with eyes(fleet, EXACT) as sight:
        tell(fleet, 20_000)
        assert (await sight.look(rollout)).inventory is not None
        tell(fleet, nan)
        view = await sight.look(rollout)
    assert (view.inventory, view.totals, view.reports) == (None, None, None)
    assert "has no counts of devices: NotANumber" in view.problem


async def test_counts_of_another_attempt_say_only_what_devices_run(fleet: RecordedFleet) -> None:
    tell(fleet, 20_000, 15_000)
    async with eyes(fleet, EXACT) as sight:
        view = await sight.look(a_rollout_at_work(fleet))
        assert view.totals == Totals(15_000, 15_000, running={NEW: 15_000})
        later = sight.sight.view(sight.key, a_rollout_at_work(fleet, attempt=3))
    assert later.totals == Totals(running={NEW: 15_000})


async def test_a_file_says_which_devices_there_are(fleet: RecordedFleet) -> None:
    async def read(uri: str, namespace: str) -> str:
        return "\n".join(json.dumps({"id": f"{number:032x}"}) for number in range(12))

    tell(fleet, 20_000)
    made = at_work(startedAt=stamp(fleet.at)).having("spec.inventory", {"uri": "s3://releases/inventory/tv/d.jsonl"})
    async with eyes(fleet, EXACT, read) as sight:
        view = await sight.look(made.build())
    assert view.inventory is not None
    assert view.inventory.groups == (Group(12),)


async def test_status_is_small_for_a_million_devices(fleet: RecordedFleet) -> None:
    tell(fleet, 1_000_000, 100_000)
    rollout = a_rollout_at_work(fleet)
    reach = {"cutoffs": [{"cutoff": f"{2**64 // 10:016x}"}]}
    status = rollout.status.model_validate(rollout.status.model_dump(by_alias=True) | {"reach": reach})
    rollout = rollout.model_copy(update={"status": status.model_copy(update={"stable": a_release(OLD)})})
    async with eyes(fleet, EXACT) as sight:
        view = await sight.look(rollout)
    observed = Observed(rollout, inventory=view.inventory, totals=view.totals, measured=view.measured)
    found = decide(observed, Delivery(), fleet.at).status
    assert found.step is not None
    assert (found.step.devices.known, found.step.devices.expected, found.step.devices.healthy) == (
        1_000_000,
        100_000,
        100_000,
    )
    assert len(found.model_dump_json(by_alias=True).encode()) < 64 << 10
