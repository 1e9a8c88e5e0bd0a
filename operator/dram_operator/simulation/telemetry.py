"""What imagined devices count and what a Prometheus would hold of it: counters at the moments at which they were recorded."""

from collections import deque
from dataclasses import dataclass, field
from math import cos, pi
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from dram_agent.buckets import LATENCY_BUCKETS
from dram_agent.fleet.scenario import Behaviour, Load
from dram_operator.simulation.population import Floats, Population

Counts = NDArray[np.int64]
CLOUD, ERROR = 0, 1
"""Columns of the counters; behind them one a bucket of latency, the last without an upper bound."""
OK = 2
COLUMNS = OK + len(LATENCY_BUCKETS) + 1
HOUR, DAY = 3600.0, 86_400.0
GOLDEN_ITEMS = 8
"""What a device tries a release with; see the agent's smoke test."""
MEMORY_SIGMA = 0.05


@dataclass(frozen=True)
class Recorded:
    """What is known of all devices at a moment."""

    seconds: float
    counts: Counts
    """[device, column]; as the device told last."""


@dataclass
class Meters:
    """The devices' own counters and gauges."""

    population: Population
    loads: tuple[Load, ...]
    """One a group."""
    dice: np.random.Generator
    day_offset: float
    """Seconds of the day at the start."""
    counts: Counts = field(init=False)
    of_candidate: Counts = field(init=False)
    """The part of them that was counted while the device ran the candidate."""
    on_candidate: NDArray[np.bool_] = field(init=False)
    errors: Floats = field(init=False)
    cloud: Floats = field(init=False)
    buckets: Floats = field(init=False)
    """[device, bucket]: chances of a request to end there."""
    golden: Floats = field(init=False)
    memory: Floats = field(init=False)
    measures: dict[str, Floats] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        size = self.population.size
        self.counts, self.of_candidate = (np.zeros((size, COLUMNS), dtype=np.int64) for _ in range(2))
        self.on_candidate = np.zeros(size, dtype=bool)
        self.errors, self.cloud = np.zeros(size), np.ones(size)
        self.buckets = np.zeros((size, len(LATENCY_BUCKETS) + 1))
        self.buckets[:, -1] = 1.0
        self.golden, self.memory = np.full(size, np.nan), np.full(size, np.nan)
        per_hour = np.array([load.per_hour for load in self.loads])
        self._rate = per_hour[self.population.group] * self.population.load / HOUR

    def behave(self, device: int, how: Behaviour, *, tried: bool, on_candidate: bool) -> None:
        """A device serves by itself like this from now on; `tried` says that it has just taken this release up."""
        people = self.population
        self.on_candidate[device] = on_candidate
        self.errors[device] = min(1.0, how.error_ratio * people.frailty[device])
        self.cloud[device] = how.fallback_ratio
        self.buckets[device] = chances(how.latency_seconds * people.slowness[device], how.latency_sigma)
        if tried:
            self.golden[device] = self.dice.binomial(GOLDEN_ITEMS, how.golden_ratio) / GOLDEN_ITEMS
        self.memory[device] = how.memory_bytes * np.exp(MEMORY_SIGMA * self.dice.standard_normal())
        for name, value in how.measures.items():
            known = self.measures.setdefault(name, np.full(people.size, np.nan))
            known[device] = value * people.level[device]

    def leave_to_cloud(self, device: int) -> None:
        """No local model answers any more."""
        self.cloud[device] = 1.0

    def serve(self, seconds: float, until: float, is_on: NDArray[np.bool_]) -> None:
        """Count the requests of a stretch of time, of the devices that are switched on."""
        mean = self._rate * self._day((seconds + until) / 2) * (until - seconds) * is_on
        requests = self.dice.poisson(mean)
        cloud = self.dice.binomial(requests, self.cloud)
        served = requests - cloud
        failed = self.dice.binomial(served, self.errors)
        new = np.column_stack((cloud, failed, self.dice.multinomial(served - failed, self.buckets)))
        self.counts += new
        self.of_candidate[self.on_candidate] += new[self.on_candidate]

    def _day(self, seconds: float) -> Floats:
        """How busy each device's time of the day is."""
        hour = (self.day_offset + seconds) / HOUR
        shape = [1 + load.diurnal * cos(2 * pi * (hour - load.peak_hour) / 24) for load in self.loads]
        return np.array(shape)[self.population.group]


def chances(median: float, sigma: float) -> Floats:
    """The chance of each bucket for requests whose seconds are log-normal."""
    if sigma == 0:
        place = int(np.searchsorted(LATENCY_BUCKETS, median))
        return np.asarray(np.eye(len(LATENCY_BUCKETS) + 1)[place])
    below = NormalDist(np.log(median), sigma)
    upto = [0.0, *(below.cdf(np.log(edge)) for edge in LATENCY_BUCKETS), 1.0]
    found = np.diff(upto)
    return np.asarray(found / found.sum())


@dataclass
class Records:
    """The recorded counters, for as long as a look may ask back."""

    size: int
    keep_seconds: float
    """How far back the shortest windows reach."""
    shown: Counts = field(init=False)
    """As every device told last."""
    last_seen: Floats = field(init=False)
    latest: float | None = None
    """When anything was recorded last."""
    _kept: deque[Recorded] = field(default_factory=deque)
    _marks: dict[str, Counts] = field(default_factory=dict)
    _due: set[str] = field(default_factory=set)
    """Marks to be set by the next record."""

    def __post_init__(self) -> None:
        self.shown = np.zeros((self.size, COLUMNS), dtype=np.int64)
        self.last_seen = np.zeros(self.size)

    def record(self, seconds: float, counts: Counts, tells: NDArray[np.bool_]) -> None:
        """Take in what the devices that can be reached tell."""
        self.shown[tells] = counts[tells]
        self.last_seen[tells] = seconds
        if tells.any():
            self.latest = seconds
        self._kept.append(Recorded(seconds, self.shown.copy()))
        for name in self._due:
            self._marks[name] = self._kept[-1].counts
        self._due.clear()
        while len(self._kept) > 2 and self._kept[1].seconds <= seconds - self.keep_seconds:
            self._kept.popleft()

    def mark(self, name: str) -> None:
        """Keep the next record under a name: a range of a query begins with the first sample in it."""
        self._due.add(name)

    def since(self, begun: float) -> Counts:
        """Increases from the first record after a moment until now."""
        first = next((one for one in self._kept if one.seconds > begun), None)
        return self.shown - (first.counts if first else self.shown)

    def since_mark(self, name: str) -> Counts:
        """Increases since a mark until now."""
        return self.shown - (self.shown if name in self._due else self._marks[name])
