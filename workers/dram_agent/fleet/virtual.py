"""A model that is not there: it passes or fails its smoke test, answers, slows down and crashes as its scenario says."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import cos, exp, pi

from dram_agent.document import Artifact
from dram_agent.fleet.draw import Imagined
from dram_agent.fleet.effects import changed_by
from dram_agent.fleet.faults import Crash, SmokeTest
from dram_agent.fleet.scenario import Behaviour
from dram_agent.slots import Held, Slot
from dram_agent.state import Why
from dram_agent.telemetry import NONE, FallbackCause, Outcome, ServedBy, Telemetry

LONGEST_PAUSE_SECONDS = 60.0
"""Between two starts of a process that keeps ending, as of a real one."""
GOLDEN_ITEMS = 8
CLOUD_SECONDS = 1.0
HOUR = 3600.0


@dataclass
class VirtualRuntime:
    """Implements the update loop's `Runtime` for one imagined device, and tells of its requests."""

    one: Imagined
    telemetry: Telemetry
    is_candidate: Callable[[str], bool]
    """Whether a release is, or was when it came, the channel's candidate."""
    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    before_start: Callable[[], None] = lambda: None
    """Called before every start, as of a real process."""
    dice: random.Random = field(default_factory=random.Random)
    _served: Held | None = None
    _began: float = 0.0
    """When the release was served first."""
    _healthy_from: float | None = None
    _ends: int = 0
    """How often the model has crashed since then."""
    _starts_at: float = 0.0
    _asked_at: float | None = None
    """When the next request comes."""

    def test(self, slot: Slot, held: Held, artifact: Artifact) -> Why | None:
        """Pass, unless the scenario lets the candidate fail here."""
        fails = self.is_candidate(held.release) and any(isinstance(one, SmokeTest) for one in self.one.faults)
        return Why.SMOKE if fails else None

    def serve(self, slot: Slot, held: Held) -> None:
        """Answer with this release from now on."""
        now = self.monotonic()
        self.before_start()
        self._served, self._began, self._healthy_from, self._ends = held, now, now, 0
        if self.telemetry.release != held.release:
            self.telemetry.use(held.release)
        passed = sum(self.dice.random() < self._how().golden_ratio for _ in range(GOLDEN_ITEMS))
        self.telemetry.show_golden(passed / GOLDEN_ITEMS)
        self._show()

    def stop(self) -> None:
        """No local model any more."""
        self._served = self._healthy_from = None
        self.telemetry.use(NONE)

    def healthy_since(self) -> float | None:
        since = self._healthy_from
        return None if since is None else self.wall() - (self.monotonic() - since)

    def is_starting(self) -> bool:
        """Never: it is up at once."""
        return False

    def seconds_on_candidate(self) -> float | None:
        """For how long the candidate has been served; None while something else is."""
        if self._served is None or not self.is_candidate(self._served.release):
            return None
        return self.monotonic() - self._began

    def live(self) -> None:
        """Crash and start again where that is due, and answer what was asked since the last time."""
        if self._is_crashing():
            self._crash()
        self._show()
        self._answer()

    def _is_crashing(self) -> bool:
        age = self.seconds_on_candidate()
        crashes = (one for one in self.one.faults if isinstance(one, Crash))
        return age is not None and any(one.after_seconds <= age for one in crashes)

    def _crash(self) -> None:
        """End; and start when the pause is over, only to end again at the next look."""
        now = self.monotonic()
        if self._healthy_from is not None or now >= self._starts_at:
            if self._healthy_from is None:
                self.before_start()
            self._healthy_from = None
            self._ends += 1
            self._starts_at = now + min(LONGEST_PAUSE_SECONDS, 2.0 ** (self._ends - 1))

    def _how(self) -> Behaviour:
        age = self.seconds_on_candidate()
        group = self.one.group
        return group.stable if age is None else changed_by(self.one.faults, group.on_candidate, age)

    def _show(self) -> None:
        if self._served is not None:
            since = self._healthy_from
            healthy = None if since is None else self.monotonic() - since
            self.telemetry.show_health(healthy, self._how().memory_bytes)

    def _answer(self) -> None:
        now, mean = self.monotonic(), self._per_second()
        if mean == 0:
            return
        if self._asked_at is None:
            self._asked_at = now + self.dice.expovariate(mean)
        while self._asked_at <= now:
            self._answer_one()
            self._asked_at += self.dice.expovariate(mean)

    def _per_second(self) -> float:
        load = self.one.group.load
        moment = datetime.fromtimestamp(self.wall(), UTC)
        hour = moment.hour + moment.minute / 60
        day = 1 + load.diurnal * cos(2 * pi * (hour - load.peak_hour) / 24)
        return load.per_hour * self.one.load * day / HOUR

    def _answer_one(self) -> None:
        how = self._how()
        unwell = self._healthy_from is None
        if unwell or self.dice.random() < how.fallback_ratio:
            self.telemetry.count_fallback(FallbackCause.UNHEALTHY if unwell else FallbackCause.OVERLOAD)
            self.telemetry.count_request(Outcome.OK, ServedBy.CLOUD, CLOUD_SECONDS)
            return
        failed = self.dice.random() < how.error_ratio * self.one.frailty
        seconds = how.latency_seconds * self.one.slowness * exp(self.dice.gauss() * how.latency_sigma)
        self.telemetry.count_request(Outcome.ERROR if failed else Outcome.OK, ServedBy.DEVICE, seconds)
