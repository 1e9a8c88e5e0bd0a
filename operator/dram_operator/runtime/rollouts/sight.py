"""How the devices of a rollout look: by queries in the background, so that no reconcile ever waits for a metrics server.

A rollout that has a candidate, or waits for the list of devices to get one, is looked at once an interval; the end of a look wakes the rollout. A look whose answers are too
old shows nothing: what is not seen now lets nothing pass. All that is remembered between looks can be asked for again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from dram_operator.adapters.prometheus import Prometheus
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_reasons import RolloutCondition, RolloutReason
from dram_operator.core.rollout.answers import ERRORS, Trouble
from dram_operator.core.rollout.cohort import EXACT_DEVICES
from dram_operator.core.rollout.counted import (
    grouped,
    is_current,
    known_query,
    selected_labels,
    told_at,
)
from dram_operator.core.rollout.evidence import FRESH_INTERVALS
from dram_operator.core.rollout.inventory import Inventory, InventoryError, inventory_of_file
from dram_operator.core.rollout.looks import counted_looks, metric_looks
from dram_operator.core.rollout.observed import DeviceReport, Measured, Totals
from dram_operator.core.rollout.telemetry import Memory, Subject, remembered
from dram_operator.core.times import parse_time
from dram_operator.errors import OperatorError
from dram_operator.runtime.cache import Key
from dram_operator.runtime.rollouts.asking import ask_counts, ask_devices
from dram_operator.runtime.rollouts.measuring import Windows, measure

log = logging.getLogger(__name__)

LOOKS_AT_ONCE = 4
"""Looks at one endpoint at the same time: a look asks all its queries for one moment, so it must not wait in their middle."""
GOING_BACK_SECONDS = 10.0
"""How often to look at devices that are going back, where the interval is longer."""

ASKING = (RolloutReason.INVENTORY_UNAVAILABLE, RolloutReason.FLEET_TOO_LARGE, RolloutReason.NO_DEVICES)
"""What a pass says that lacks the list of devices."""
NAMELESS = "devices report without the label `device`, and are judged one by one: set the agents' deviceLabel"
ReadList = Callable[[str, str], Awaitable[str]]
"""Reads a list of devices by its URI for a namespace; raises OperatorError."""

Step = tuple[int, int, str]
"""Attempt, index of the step, and when it started: what figures are about."""


@dataclass(frozen=True)
class View:
    """What is known of a rollout's devices now."""

    inventory: Inventory | None = None
    reports: Mapping[str, DeviceReport] | None = None
    totals: Totals | None = None
    """Instead of reports, of devices that are only counted."""
    measured: tuple[Measured, ...] = ()
    problem: str = ""
    """Why there is no inventory, or nobody in it; empty where there is one, or nobody looked yet."""
    reason: RolloutReason = RolloutReason.INVENTORY_UNAVAILABLE
    """The same in a word, where there is no inventory."""
    due_in: float | None = None
    """Seconds until the next look; None when nobody looks."""


@dataclass
class _Watch:
    """One rollout that is looked at."""

    memory: Memory = field(default_factory=Memory)
    windows: Windows = field(default_factory=dict)
    source: tuple[str, int] = ("", 0)
    """The endpoint and the look-back that the memory is about."""
    step: Step = (0, 0, "")
    """The step that the windows are about."""
    way: "tuple[int, bool] | None" = None
    """The attempt, and whether its devices are counted instead of listed: decided once an attempt."""
    began_at: float | None = None
    """When the latest look began, on the clock that nobody sets."""
    seen: "_Seen | None" = None
    task: "asyncio.Task[None] | None" = None


@dataclass(frozen=True)
class _Seen:
    """What a look showed, of which step and when."""

    view: View
    step: Step
    began_at: float

    def shown_to(self, step: Step) -> View:
        """As much of it as is about the present attempt and step."""
        if step[0] != self.step[0] and self.view.reports is not None:
            of_before = {
                device: replace(one, activated_at=None, gave_up_on=None) for device, one in self.view.reports.items()
            }
            return replace(self.view, reports=of_before, measured=())
        if step[0] != self.step[0] and self.view.totals is not None:
            return replace(self.view, totals=Totals(running=self.view.totals.running), measured=())
        return self.view if step == self.step else replace(self.view, measured=())


class Sight:
    """Looks at rollouts, each by the endpoint that it names."""

    def __init__(
        self,
        endpoints: Mapping[str, Prometheus],
        wake: Callable[[Key], None],
        clock: Callable[[], datetime],
        ticks: Callable[[], float],
        read_list: ReadList | None = None,
        exact_devices: int = EXACT_DEVICES,
    ) -> None:
        self._endpoints = endpoints
        self._wake = wake
        self._clock = clock
        self._ticks = ticks
        self._read_list = read_list
        self._exact_devices = exact_devices
        self._turns = {name: asyncio.Semaphore(LOOKS_AT_ONCE) for name in endpoints}
        self._watches: dict[Key, _Watch] = {}

    def view(self, key: Key, rollout: EdgeRollout) -> View:
        """What the latest look showed; begins the next one where it is due."""
        if not needs_sight(rollout):
            self.forget(key)
            return View()
        name = rollout.spec.analysis.prometheus_ref.name
        if name not in self._endpoints:
            known = ", ".join(self._endpoints) or "none"
            return View(problem=f"the installation has no metrics server named {name!r}, it has: {known}")
        watch = self._watches.setdefault(key, _Watch())
        step, interval = _step_of(rollout), rollout.spec.analysis.interval_seconds
        every = min(interval, GOING_BACK_SECONDS) if _is_going_back(rollout) else interval
        is_new = watch.seen is None or watch.seen.step[0] != step[0]
        left = 0.0 if is_new or watch.began_at is None else watch.began_at + every - self._ticks()
        if left <= 0 and watch.task is None:
            watch.task = asyncio.create_task(self._look(key, rollout, watch))
        due = left if left > 0 else every
        if watch.seen is None or self._ticks() - watch.seen.began_at > FRESH_INTERVALS * interval:
            return View(due_in=due)
        return replace(watch.seen.shown_to(step), due_in=due)

    def forget(self, key: Key) -> None:
        """Nobody needs to look at the rollout any more."""
        watch = self._watches.pop(key, None)
        if watch and watch.task:
            watch.task.cancel()

    async def close(self) -> None:
        """End all looks and close the connections."""
        tasks = [watch.task for watch in self._watches.values() if watch.task]
        for key in list(self._watches):
            self.forget(key)
        await asyncio.gather(*tasks, return_exceptions=True)
        for endpoint in self._endpoints.values():
            await endpoint.close()

    async def _look(self, key: Key, rollout: EdgeRollout, watch: _Watch) -> None:
        name = rollout.spec.analysis.prometheus_ref.name
        try:
            async with self._turns[name]:
                watch.began_at, at = self._ticks(), self._clock()
                view = await self._seen(self._endpoints[name], rollout, watch, at)
                watch.seen = _Seen(view, _step_of(rollout), watch.began_at)
        finally:
            watch.task = None
            self._wake(key)

    async def _seen(self, endpoint: Prometheus, rollout: EdgeRollout, watch: _Watch, at: datetime) -> View:
        subject, step = subject_of(rollout), _step_of(rollout)
        source = (rollout.spec.analysis.prometheus_ref.name, subject.lookback_seconds)
        if watch.source != source:
            watch.memory, watch.source = Memory(), source
        if watch.step != step:
            watch.windows, watch.step = {}, step
        if watch.way is None or watch.way[0] != step[0]:
            watch.way = await self._way(endpoint, rollout, at)
        if watch.way is not None and watch.way[1]:
            return await self._counted(endpoint, rollout, watch, at)
        told = await ask_devices(endpoint, subject, watch.memory, at)
        if told.trouble:
            watch.way = None
            measured = await _measured(endpoint, rollout, watch, at, told.trouble)
            return replace(_without_list(source[0], told.trouble), measured=measured)
        watch.memory = remembered(watch.memory, told, subject)
        measured = await _measured(endpoint, rollout, watch, at, None)
        problem = NAMELESS if told.seen.samples and not watch.memory.sightings else ""
        view = View(watch.memory.inventory(), watch.memory.reports(subject), measured=measured, problem=problem)
        return view if rollout.spec.inventory.uri is None else await self._listed(rollout, view)

    async def _way(self, endpoint: Prometheus, rollout: EdgeRollout, at: datetime) -> tuple[int, bool] | None:
        """Whether devices are counted: where counts are recorded, and say that there are more than can be told apart exactly.

        A step that was shared out so goes on so, however many there are. None where nobody can tell.
        """
        answer = await endpoint.query(known_query(subject_of(rollout)), at)
        if answer.trouble:
            return None
        known, step = sum(sample.value for sample in answer.samples), rollout.status.step
        goes_on = step is not None and step.approximate and known > 0
        return rollout.status.attempt, goes_on or known > self._exact_devices

    async def _counted(self, endpoint: Prometheus, rollout: EdgeRollout, watch: _Watch, at: datetime) -> View:
        """The same look at devices that are only counted."""
        subject, names = subject_of(rollout), selected_labels(rollout)
        counts = await ask_counts(endpoint, subject, names, at)
        measured = await _measured(endpoint, rollout, watch, at, counts.trouble, counted=True)
        if not counts.trouble and not counts.known.samples:
            watch.way = None
        if counts.trouble or not is_current(counts, subject):
            why = counts.trouble.value if counts.trouble else told_at(counts)
            name = rollout.spec.analysis.prometheus_ref.name
            return View(measured=measured, problem=f"the metrics server {name!r} has no counts of devices: {why}")
        totals = counts.totals(subject.digest)
        view = View(counts.inventory(), totals=totals, measured=measured)
        if rollout.spec.inventory.uri is None or view.inventory is None:
            return view
        listed = await self._listed(rollout, replace(view, inventory=Inventory()))
        if listed.inventory is None:
            return listed
        return replace(listed, inventory=grouped(listed.inventory, names, view.inventory))

    async def _listed(self, rollout: EdgeRollout, view: View) -> View:
        """The devices of the file that the spec names, instead of those that report."""
        uri, read = rollout.spec.inventory.uri or "", self._read_list
        if read is None or view.inventory is None:
            return replace(view, inventory=None, problem=f"{uri} cannot be read: there is no release repository")
        try:
            text = await read(uri, rollout.metadata.namespace)
            return replace(view, inventory=inventory_of_file(text, view.inventory))
        except (OperatorError, InventoryError) as error:
            return replace(view, inventory=None, problem=str(error))


def _without_list(server: str, trouble: Trouble) -> View:
    """What is known where the list of devices cannot be had."""
    problem = f"the metrics server {server!r} gave no list of devices: {trouble.value}"
    if trouble is not Trouble.TOO_LARGE:
        return View(problem=problem)
    problem += "; load Dram's recording rules where devices are scraped, or raise its largestAnswerBytes"
    return View(problem=problem, reason=RolloutReason.FLEET_TOO_LARGE)


def needs_sight(rollout: EdgeRollout) -> bool:
    """Whether devices have to be looked at: a candidate is on its way, or the last pass asked who there is."""
    status = rollout.status
    if rollout.metadata.deletion_timestamp:
        return False
    ready = next((one.reason for one in status.conditions if one.type is RolloutCondition.READY), "")
    return status.candidate is not None or ready in ASKING


def subject_of(rollout: EdgeRollout) -> Subject:
    """What a look at the rollout's devices is about."""
    status, spec = rollout.status, rollout.spec
    fresh = FRESH_INTERVALS * spec.analysis.interval_seconds
    return Subject(
        channel=rollout.channel,
        digest=status.candidate.release.digest if status.candidate else None,
        attempt=status.attempt,
        attempt_since=parse_time(status.candidate.since) if status.candidate else None,
        lookback_seconds=spec.inventory.lookback_seconds,
        silence_seconds=max(spec.strategy.offline.after_seconds, fresh),
        interval_seconds=spec.analysis.interval_seconds,
    )


async def _measured(
    endpoint: Prometheus,
    rollout: EdgeRollout,
    watch: _Watch,
    at: datetime,
    trouble: Trouble | None,
    *,
    counted: bool = False,
) -> tuple[Measured, ...]:
    """A look at every metric. Who did not answer for the devices does not answer for the rest: to wait for it all would take many times as long."""
    if _is_going_back(rollout):
        return ()
    looks = counted_looks(rollout, at) if counted else metric_looks(rollout, at, watch.windows)
    return await measure(endpoint, looks, watch.windows, at, trouble if trouble in ERRORS else None)


def _is_going_back(rollout: EdgeRollout) -> bool:
    rollback = rollout.status.rollback
    return rollback is not None and rollback.completed_at is None


def _step_of(rollout: EdgeRollout) -> Step:
    step, attempt = rollout.status.step, rollout.status.attempt
    return (attempt, step.index, step.started_at) if step else (attempt, -1, "")
