"""What imagined devices do: poll, follow the signed document, take releases up and leave them, and go wrong as they are told.

They decide by the agent's own reading of the document; what is imagined is how long things take and how they fail.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dram_agent.cohort import device_hash, is_member, release_for
from dram_agent.document import ChannelDocument
from dram_agent.fleet.effects import changed_by
from dram_agent.fleet.faults import ClockSkew, Crash, Fault, Offline, Silent, SmokeTest
from dram_agent.fleet.scenario import Scenario
from dram_operator.simulation.population import Floats, Population, behaviours
from dram_operator.simulation.telemetry import Meters

JITTER = 0.2
"""Of every wait between two polls, as the agent has it."""
SOAK_SECONDS = 300.0
"""A release is on trial for so long, as the agent has it."""
CRASH_LOOP_SECONDS = 15.0
"""From the first crash of a release on trial until the device gives it up: three starts with growing pauses."""
DOWNLOAD_SIGMA = 0.4
TIMESTAMP_SECONDS = 86_400.0
"""How long a signed timestamp is valid."""
RENEWAL_SECONDS = 14_400.0
"""How often it is signed anew when nothing changes."""
NEVER = float("inf")
STATES = ("offline", "silent", "gave up", "unwell on the candidate", "on the candidate", "on stable")
"""What a device may be seen as; the first that is true."""


class Runs(IntEnum):
    """What a device runs."""

    NOTHING = 0
    STABLE = 1
    CANDIDATE = 2


@dataclass
class Site:
    """The release repository as devices see it."""

    document: ChannelDocument | None = None
    version: int = 0
    signed_at: float = 0.0
    is_up: bool = True

    def publish(self, document: ChannelDocument, seconds: float) -> None:
        """Sign another document."""
        self.document, self.version, self.signed_at = document, self.version + 1, seconds

    def expires(self, seconds: float) -> float:
        """When metadata that is fetched now ends: operators sign it anew every four hours."""
        renewals = int((seconds - self.signed_at) // RENEWAL_SECONDS)
        return self.signed_at + renewals * RENEWAL_SECONDS + TIMESTAMP_SECONDS


@dataclass
class Devices:
    """The fleet. One entry a device in every array; times are seconds since the start."""

    scenario: Scenario
    population: Population
    meters: Meters
    site: Site
    candidate: str
    """Digest of the candidate."""
    dice: np.random.Generator
    offline: NDArray[np.bool_] = field(init=False)
    silent_from: Floats = field(init=False)
    """Since when it tells nothing; infinite where it tells."""
    runs: NDArray[np.int8] = field(init=False)
    activated: Floats = field(init=False)
    """When it switched to what it runs."""
    healthy: Floats = field(init=False)
    """Since when that is well; NaN while it is not."""
    taken_up: Floats = field(init=False)
    """When it first switched to the candidate in this attempt; NaN while it has not."""
    gave_up: NDArray[np.bool_] = field(init=False)
    """On the candidate, in this attempt."""
    attempt: NDArray[np.int64] = field(init=False)
    treated: NDArray[np.bool_] = field(init=False)
    """Its arm by the document that it saw last."""

    def __post_init__(self) -> None:
        size, polling = self.population.size, self.scenario.polling
        self.offline, self.silent_from = np.zeros(size, dtype=bool), np.full(size, NEVER)
        self.runs = np.full(size, Runs.STABLE, dtype=np.int8)
        self.activated, self.healthy, self.taken_up = np.zeros(size), np.zeros(size), np.full(size, np.nan)
        self.gave_up, self.treated = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        self.attempt = np.zeros(size, dtype=np.int64)
        self.seen_before = np.array([_gone_from(faults) for faults in self.population.faults])
        self.skew = np.array([_skew(faults) for faults in self.population.faults])
        self._seen, self._fresh = np.full(size, -1), np.zeros(size)
        self._failures = np.zeros(size, dtype=np.int64)
        self._next_poll = self.dice.uniform(0, polling.poll_seconds, size)
        self._activation, self._taking_up = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=bool)
        self._how = behaviours(self.scenario)
        self._due: list[tuple[float, int, int, Callable[[float], None]]] = []
        self._number = 0
        self._salted: tuple[str, list[int]] = ("", [])
        for device in range(size):
            self._behave(device, 0.0, tried=True)
            for fault in self.population.faults[device]:
                if isinstance(fault, Offline):
                    self._at(fault.from_seconds, device, partial(self._go, device))
                    self._at(fault.until_seconds, device, partial(self._come_back, device))
        self._happen(0.0)

    def advance(self, until: float) -> None:
        """Live up to a moment; the signed document does not change meanwhile."""
        self._happen(until)
        self._poll(until)
        self._happen(until)
        lease = self.scenario.polling.candidate_lease_seconds
        for device in np.flatnonzero((self.runs == Runs.CANDIDATE) & (until - self._fresh > lease)):
            self._return(int(device), until)

    def by_state(self, now: float) -> dict[str, int]:
        """How many devices are in each of STATES; everyone is in one."""
        on_candidate = self.runs == Runs.CANDIDATE
        found = np.select(
            [self.offline, self.silent_from <= now, self.gave_up, on_candidate & np.isnan(self.healthy), on_candidate],
            range(5),
            default=5,
        )
        return dict(zip(STATES, np.bincount(found, minlength=len(STATES)).tolist(), strict=True))

    def _at(self, seconds: float | None, device: int, act: Callable[[float], None]) -> None:
        if seconds is not None:
            self._number += 1
            heapq.heappush(self._due, (seconds, device, self._number, act))

    def _happen(self, until: float) -> None:
        while self._due and self._due[0][0] <= until:
            seconds, _, _, act = heapq.heappop(self._due)
            act(seconds)

    def _poll(self, until: float) -> None:
        polling = self.scenario.polling
        while (due := np.flatnonzero((self._next_poll <= until) & ~self.offline)).size:
            now = self._next_poll[due]
            expires = self.site.expires(until)
            well = np.full(due.size, self.site.is_up) & (now + self.skew[due] < expires)
            news = due[well & (self._seen[due] != self.site.version)]
            for device in news:
                self._learn(int(device), float(self._next_poll[device]))
            self._fresh[due[well]] = now[well]
            self._failures[due] = np.where(well, 0, self._failures[due] + 1)
            base = np.where(self.treated[due], polling.active_poll_seconds, polling.poll_seconds).astype(float)
            grown = np.minimum(base * 2.0 ** np.minimum(self._failures[due], 30), max(polling.backoff_seconds, 1))
            wait = np.where(self._failures[due] > 0, np.maximum(grown, base), base)
            self._next_poll[due] = now + wait * self.dice.uniform(1 - JITTER, 1 + JITTER, due.size)

    def _learn(self, device: int, now: float) -> None:
        """Read a document that is new to the device, and do what it says."""
        document = self.site.document
        self._seen[device] = self.site.version
        if document is None:
            return
        me, hashed = self.population.inventory[device], self._hash(document.salt, device)
        if document.attempt != self.attempt[device]:
            self.attempt[device], self.gave_up[device], self.taken_up[device] = document.attempt, False, np.nan
        self.treated[device] = document.candidate is not None and is_member(document, me.labels, hashed)
        wanted = release_for(document, me.labels, hashed)
        on_candidate = self.runs[device] == Runs.CANDIDATE
        is_wanted = (
            wanted is not None and wanted.digest == self.candidate and (on_candidate or not document.withdrawing)
        )
        if on_candidate and (self.candidate in document.denied or (not is_wanted and not document.frozen)):
            self._return(device, now)
        elif not on_candidate and (not is_wanted or self.gave_up[device] or document.frozen):
            self._stop_taking_up(device)
        elif not on_candidate and not self._taking_up[device]:
            self._take_up(device, now)

    def _hash(self, salt: str, device: int) -> int:
        if self._salted[0] != salt:
            key = bytes.fromhex(salt)
            self._salted = (salt, [device_hash(key, one.id) for one in self.population.inventory])
        return self._salted[1][device]

    def _take_up(self, device: int, now: float) -> None:
        """Fetch and try the candidate; a document that takes it back meanwhile ends this."""
        self._activation[device] += 1
        self._taking_up[device] = True
        asked = self._activation[device]
        median = self.scenario.groups[self.population.group[device]].download_seconds
        seconds = median * float(np.exp(DOWNLOAD_SIGMA * self.dice.standard_normal()))
        self._at(now + seconds, device, partial(self._try, device, asked))

    def _try(self, device: int, asked: int, now: float) -> None:
        if self._activation[device] != asked:
            return
        self._taking_up[device] = False
        if self.offline[device] or not self.site.is_up:
            # nothing is activated on metadata that was not verified a moment ago: the next poll tries again
            self._seen[device] = -1
            return
        if self._has(device, SmokeTest):
            self.gave_up[device] = True
            return
        self._activate(device, Runs.CANDIDATE, now)
        self.taken_up[device] = now if np.isnan(self.taken_up[device]) else self.taken_up[device]
        for fault in self.population.faults[device]:
            after = getattr(fault, "after_seconds", None)
            if after is not None:
                self._at(now + after, device, partial(self._go_wrong, device, asked, fault))

    def _go_wrong(self, device: int, asked: int, fault: Fault, now: float) -> None:
        if self._activation[device] != asked or self.runs[device] != Runs.CANDIDATE:
            return
        if isinstance(fault, Silent):
            self.silent_from[device] = now
        elif isinstance(fault, Crash):
            self.healthy[device] = np.nan
            self.meters.leave_to_cloud(device)
            if now - self.activated[device] < SOAK_SECONDS:
                self._at(now + CRASH_LOOP_SECONDS, device, partial(self._give_up, device, asked))
        else:
            self._behave(device, now, tried=False)

    def _give_up(self, device: int, asked: int, now: float) -> None:
        if self._activation[device] == asked:
            self.gave_up[device] = True
            self._return(device, now)

    def _return(self, device: int, now: float) -> None:
        """Back to stable, which is in the other slot."""
        self._stop_taking_up(device)
        self._activate(device, Runs.STABLE, now)

    def _stop_taking_up(self, device: int) -> None:
        self._activation[device] += 1
        self._taking_up[device] = False

    def _activate(self, device: int, runs: Runs, now: float) -> None:
        self.runs[device], self.activated[device], self.healthy[device] = runs, now, now
        self._behave(device, now, tried=True)

    def _behave(self, device: int, now: float, *, tried: bool) -> None:
        how, candidate = self._how[self.population.group[device]]
        on_candidate = bool(self.runs[device] == Runs.CANDIDATE)
        if on_candidate:
            how = changed_by(self.population.faults[device], candidate, now - self.activated[device])
        self.meters.behave(device, how, tried=tried, on_candidate=on_candidate)

    def _go(self, device: int, now: float) -> None:
        self.offline[device] = True

    def _come_back(self, device: int, now: float) -> None:
        self.offline[device], self._next_poll[device] = False, now

    def _has(self, device: int, kind: type[Fault]) -> bool:
        return any(isinstance(fault, kind) for fault in self.population.faults[device])


def _gone_from(faults: tuple[Fault, ...]) -> float:
    """When a device was there last before the start."""
    return min([0.0, *(float(fault.from_seconds) for fault in faults if isinstance(fault, Offline))])


def _skew(faults: tuple[Fault, ...]) -> float:
    return float(sum(fault.seconds for fault in faults if isinstance(fault, ClockSkew)))
