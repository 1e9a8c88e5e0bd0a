"""How the devices of a rollout look: by queries in the background, so that no reconcile ever waits for a metrics server.

A rollout that has a candidate, or waits for the list of devices to get one, is looked at once an interval; the end of a look wakes the rollout. A look whose answers are too
old shows nothing: what is not seen now lets nothing pass. All that is remembered between looks can be asked for again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache

from dram_operator.adapters.prometheus import Prometheus
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_reasons import RolloutCondition, RolloutReason
from dram_operator.core.rollout.answers import ERRORS, Answer, Sample, Trouble
from dram_operator.core.rollout.evidence import FRESH_INTERVALS
from dram_operator.core.rollout.inventory import Inventory, InventoryError, inventory_of_file
from dram_operator.core.rollout.looks import MetricLook, WindowLook, metric_looks
from dram_operator.core.rollout.observed import NOTHING, DeviceReport, Measured
from dram_operator.core.rollout.presets import Queries
from dram_operator.core.rollout.telemetry import Memory, Subject, Told, list_selector, questions, remembered
from dram_operator.core.times import parse_time
from dram_operator.errors import OperatorError
from dram_operator.runtime.cache import Key

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
    windows: dict[str, dict[int, Answer]] = field(default_factory=dict)
    """Answers for closed windows by metric."""
    source: tuple[str, int] = ("", 0)
    """The endpoint and the look-back that the memory is about."""
    step: Step = (0, 0, "")
    """The step that the windows are about."""
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
    ) -> None:
        self._endpoints = endpoints
        self._wake = wake
        self._clock = clock
        self._ticks = ticks
        self._read_list = read_list
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
        told = await ask_devices(endpoint, subject, watch.memory, at)
        if told.trouble:
            # Who does not answer this does not answer the rest: to wait for it all would take many times as long.
            silent = told.trouble if told.trouble in ERRORS else None
            measured = await _measured(endpoint, rollout, watch, at, silent)
            return replace(_without_list(source[0], told.trouble), measured=measured)
        watch.memory = remembered(watch.memory, told, subject)
        measured = await _measured(endpoint, rollout, watch, at, None)
        problem = NAMELESS if told.seen.samples and not watch.memory.sightings else ""
        view = View(watch.memory.inventory(), watch.memory.reports(subject), measured, problem)
        return view if rollout.spec.inventory.uri is None else await self._listed(rollout, view)

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
    problem += "; devices are judged one by one: raise its largestAnswerBytes, or split the fleet into channels"
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


async def ask_devices(endpoint: Prometheus, subject: Subject, memory: Memory, at: datetime) -> Told:
    """What devices say of themselves, all of it as of one moment."""
    asked = questions(subject, memory, at)
    seen, healthy, activated, gave_up = await asyncio.gather(
        *(_ask(endpoint, query, at) for query in (asked.seen, asked.healthy, asked.activated, asked.gave_up))
    )
    listed = None
    if memory.is_list_due(at) and not seen.trouble:
        since = at - timedelta(seconds=subject.lookback_seconds)
        listed = await endpoint.series(list_selector(subject), since, at)
    return Told(at, seen, healthy, activated, gave_up, listed)


async def _ask(endpoint: Prometheus, query: str | None, at: datetime) -> Answer:
    return NOTHING if query is None else await endpoint.query(query, at)


async def _measured(
    endpoint: Prometheus, rollout: EdgeRollout, watch: _Watch, at: datetime, silent: Trouble | None
) -> tuple[Measured, ...]:
    """A look at every metric; where the server is `silent` nothing is asked and every answer is that."""
    if _is_going_back(rollout):
        return ()
    looks = metric_looks(rollout, at, watch.windows)
    return tuple(await asyncio.gather(*(_measure(endpoint, look, watch, at, silent) for look in looks)))


async def _measure(
    endpoint: Prometheus, look: MetricLook, watch: _Watch, at: datetime, silent: Trouble | None
) -> Measured:
    trouble = silent if look.is_askable else Trouble.NOT_ASKED

    async def ask(queries: Queries, moment: datetime) -> Answer:
        return Answer(trouble=trouble) if trouble else await endpoint.look(queries, moment)

    answer = await ask(look.figure, at) if look.figure else Answer(trouble=trouble)
    known = watch.windows.setdefault(look.name, {})
    windows = await asyncio.gather(*(_window(one, ask) for one in look.windows))
    found = dict(zip((one.number for one in look.windows), windows, strict=True))
    known |= {number: one for number, one in found.items() if one.trouble not in ERRORS}
    if trouble:
        found[max([-1, *known, *found]) + 1] = Answer(trouble=trouble)
    return Measured(look.name, at, look.query, answer, tuple(sorted((known | found).items())))


async def _window(window: WindowLook, ask: Callable[[Queries, datetime], Awaitable[Answer]]) -> Answer:
    """Every device's figure in a closed window: nothing but device and number is kept of it."""
    answers = [await ask(queries, window.ends_at) for queries in window.queries]
    trouble = next((answer.trouble for answer in answers if answer.trouble), None)
    if trouble:
        return Answer(trouble=trouble)
    times = [answer.newest for answer in answers]
    samples = (sample for answer in answers for sample in answer.samples)
    return Answer(
        tuple(Sample(_only_device(sample.labels.get("device", "")), sample.value) for sample in samples),
        newest=min((time for time in times if time), default=None) if all(times) else None,
        support=sum(answer.support or 0.0 for answer in answers),
    )


@lru_cache(maxsize=20_000)
def _only_device(device: str) -> Mapping[str, str]:
    """Shared by all windows: there may be hundreds with ten thousand devices each."""
    return {"device": device}


def _is_going_back(rollout: EdgeRollout) -> bool:
    rollback = rollout.status.rollback
    return rollback is not None and rollback.completed_at is None


def _step_of(rollout: EdgeRollout) -> Step:
    step, attempt = rollout.status.step, rollout.status.attempt
    return (attempt, step.index, step.started_at) if step else (attempt, -1, "")
