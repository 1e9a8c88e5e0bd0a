"""The Prometheus of the simulation: what devices told, and the answers that the operator's queries would get."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import isnan

import numpy as np

from dram_operator.api.rollout_analysis import Analysis, Metric
from dram_operator.core.rollout.analysis import exposure_seconds, metrics_of, window_seconds
from dram_operator.core.rollout.answers import Answer, Sample, Trouble
from dram_operator.core.rollout.inventory import Inventory
from dram_operator.core.rollout.observed import DeviceReport, Measured
from dram_operator.simulation.devices import Devices, Runs
from dram_operator.simulation.figures import Bools, Gauges, each_device, figure, is_counted, requests
from dram_operator.simulation.population import Floats
from dram_operator.simulation.telemetry import Records

LOOKBACK_SECONDS = 300.0
"""A series whose newest sample is older is not there any more (Prometheus' query.lookback-delta)."""
STEP, WINDOW = "step", "window"


@dataclass
class Prometheus:
    """Records what devices tell, while it is up, and answers."""

    devices: Devices
    analysis: Analysis
    start: datetime
    is_up: bool = True
    records: Records = field(init=False)
    of_candidate: Records = field(init=False)
    """What was counted under the candidate's label alone: limits look at nothing else."""
    _windows: dict[str, list[tuple[int, Answer]]] = field(init=False, default_factory=dict)
    _inventory: tuple[Bools, Inventory] | None = None
    """Who was known when the list was made last; it is made anew when others are."""
    _step: tuple[tuple[int, str], float] = ((0, ""), 0.0)
    """The step that windows are counted for, and when it started."""

    def __post_init__(self) -> None:
        size = self.devices.population.size
        self.records, self.of_candidate = (Records(size, float(window_seconds(self.analysis))) for _ in range(2))
        self.records.last_seen[:] = self.devices.seen_before
        self._labels = [{"device": one.id} for one in self.devices.population.inventory]
        self.told_release = np.full(size, Runs.STABLE, dtype=np.int8)
        self.told_activated, self.told_healthy = np.full(size, np.nan), np.zeros(size)
        self.told_gave_up, self.told_treated = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        self.told_attempt = np.zeros(size, dtype=np.int64)
        self.told_gauges = Gauges(np.full(size, np.nan), np.full(size, np.nan), {})

    def record(self, now: float) -> None:
        """Take in what the devices tell."""
        if self.is_up:
            tells = ~self.devices.offline & (self.devices.silent_from > now)
            self.records.record(now, self.devices.meters.counts, tells)
            self.of_candidate.record(now, self.devices.meters.of_candidate, tells)
            self._take(tells)

    def _take(self, tells: Bools) -> None:
        devices, meters, shown = self.devices, self.devices.meters, self.told_gauges
        for told, true in (
            (self.told_release, devices.runs),
            (self.told_activated, devices.taken_up),
            (self.told_healthy, devices.healthy),
            (self.told_gave_up, devices.gave_up),
            (self.told_treated, devices.treated),
            (self.told_attempt, devices.attempt),
            (shown.golden, meters.golden),
            (shown.memory, meters.memory),
        ):
            told[tells] = true[tells]
        for name, true in meters.measures.items():
            shown.measures.setdefault(name, np.full(len(tells), np.nan))[tells] = true[tells]

    def inventory(self, now: float, lookback_seconds: float | None) -> Inventory:
        """The devices that told anything during the look-back; all of them where a file says so."""
        within = np.inf if lookback_seconds is None else lookback_seconds
        known = now - self.records.last_seen <= within
        if self._inventory is None or not np.array_equal(known, self._inventory[0]):
            devices = self.devices.population.inventory
            self._inventory = known, Inventory(tuple(devices[one] for one in np.flatnonzero(known)))
        return self._inventory[1]

    def reports(self, stable: str, candidate: str) -> dict[str, DeviceReport]:
        """What every device told last."""
        digests, at = (None, stable, candidate), _Moments(self.start)
        rows = zip(
            self.devices.population.inventory, self.records.last_seen.tolist(), self.told_release.tolist(),
            self.told_healthy.tolist(), self.told_activated.tolist(), self.told_gave_up.tolist(), strict=True,
        )  # fmt: skip
        return {
            one.id: DeviceReport(
                at[seen],
                digests[runs],
                None if isnan(healthy) else at[healthy],
                None if isnan(activated) else at[activated],
                candidate if gave_up else None,
            )
            for one, seen, runs, healthy, activated, gave_up in rows
        }

    def begin_step(self, step: tuple[int, str], now: float) -> None:
        """Count requests and windows from here on, when this is another step."""
        if self._step[0] != step:
            self._step, self._windows = (step, now), {}
            self.of_candidate.mark(STEP)
            self.records.mark(WINDOW)

    def next_close(self) -> float:
        """When the window at hand closes; never where nothing is compared."""
        names = [metric.name for metric in self._compared()]
        if not names:
            return float("inf")
        closed = len(self._windows.get(names[0], ()))
        return self._step[1] + (closed + 1) * exposure_seconds(self.analysis)

    def close_window(self, now: float) -> None:
        """Keep every device's figures of the window that ends now, for metrics that are compared with control."""
        begun = now - exposure_seconds(self.analysis)
        counts, told = self.records.since_mark(WINDOW), self.records.last_seen >= begun
        for metric in self._compared():
            values = each_device(metric.preset, metric.name, counts, self.told_gauges)
            found = self._windows.setdefault(metric.name, [])
            found.append((len(found), Answer(self._samples(values, told), newest=self._newest())))
        self.records.mark(WINDOW)

    def measure(self, now: float, attempt: int, began: float) -> tuple[Measured, ...]:
        """A look at every metric of an attempt that began at a moment."""
        fresh = now - self.records.last_seen <= LOOKBACK_SECONDS
        arm = fresh & self.told_treated & (self.told_attempt == attempt)
        window = max(1.0, min(float(window_seconds(self.analysis)), now - began))
        return tuple(self._look(metric, now, arm, window) for metric in metrics_of(self.analysis))

    def _look(self, metric: Metric, now: float, arm: Bools, window: float) -> Measured:
        at, windows = self.start + timedelta(seconds=now), self._closed(metric.name, now)
        if not self.is_up:
            down = Answer(trouble=Trouble.UNREACHABLE)
            windows = (*windows, (len(windows), down))
            return Measured(metric.name, at, answer=down, windows=windows)
        recent = self.of_candidate.since(now - window)
        so_far = self.of_candidate.since_mark(STEP) if now - self._step[1] > window else recent
        shown = arm if is_counted(metric.preset) else arm & (self.told_release == Runs.CANDIDATE)
        value = figure(metric.preset, metric.name, recent, self.told_gauges, shown)
        if value is None:
            return Measured(metric.name, at, answer=Answer(), windows=windows)
        answer = Answer((Sample({}, value),), newest=self._newest(), support=requests(metric.preset, so_far, arm))
        return Measured(metric.name, at, answer=answer, windows=windows)

    def _closed(self, name: str, now: float) -> tuple[tuple[int, Answer], ...]:
        """The windows that closed an interval ago: the operator lets samples come late."""
        length, interval = exposure_seconds(self.analysis), self.analysis.interval_seconds
        return tuple(self._windows.get(name, ()))[: max(0, int((now - self._step[1] - interval) // length))]

    def _compared(self) -> Iterable[Metric]:
        return (metric for metric in metrics_of(self.analysis) if metric.compare_to)

    def _samples(self, values: Floats, told: Bools) -> tuple[Sample, ...]:
        """One a device that told anything; a device without requests shows NaN, as a ratio of none to none does."""
        return tuple(Sample(self._labels[one], float(values[one])) for one in np.flatnonzero(told))

    def _newest(self) -> datetime | None:
        latest = self.records.latest
        return None if latest is None else self.start + timedelta(seconds=latest)


class _Moments(dict[float, datetime]):
    """Seconds since the start as moments; each is made once."""

    def __init__(self, start: datetime) -> None:
        super().__init__()
        self._start = start

    def __missing__(self, seconds: float) -> datetime:
        self[seconds] = moment = self._start + timedelta(seconds=seconds)
        return moment
