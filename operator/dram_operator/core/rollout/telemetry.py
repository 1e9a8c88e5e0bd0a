"""What devices told: which queries are asked, and how their series become the inventory and a report a device.

A look asks for what is new since the look before it, and everything else is remembered. Nothing has to be: after a restart the first look asks
further back. So a look costs the same whatever the look-back, and a silent device keeps its last report.

| asked | says |
| --- | --- |
| the series of `dram_device_info` during the look-back, once an hour; no sample is read for it | who was there |
| the time of the newest `dram_device_info` | last seen, release, labels |
| `dram_device_healthy_seconds`, now | healthy since |
| `dram_device_release_seconds` of the candidate, in this attempt | switched to it at |
| `dram_device_gave_up` of the candidate, in this attempt | gave up on it |

Each is asked for now; only a look that comes late, as the first one does, asks for the past too, a day and 72 points a device at most. Ages, not dates, come
from devices, because a device's clock may be wrong: a moment is the sample's time less the age.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import isfinite

from dram_operator.core.rollout.answers import Answer, Trouble
from dram_operator.core.rollout.evidence import FRESH_INTERVALS
from dram_operator.core.rollout.inventory import Inventory, inventory_of_series
from dram_operator.core.rollout.observed import NOTHING, DeviceReport

LIVE_SECONDS = 300
"""For how long a Prometheus takes a series' newest sample for the present one (its look-back delta)."""
LATE_SECONDS = LIVE_SECONDS // 2
"""A look that comes later than this after the one before asks for the past too: sooner, samples of then are still the present ones."""
LONGEST_HORIZON_SECONDS = 86_400
NEAR_SECONDS, NEAR_STEP_SECONDS = 7_200, LIVE_SECONDS
"""The near past is seen to the second: between two points that are no further apart no sample gets lost."""
FAR_POINTS = 48
"""Of the past beyond: a point every half hour of a day."""
ATTEMPT_POINTS = 24
FINEST_STEP_SECONDS = 60
SAME_SECONDS = 1
"""Samples of one scrape or one push differ by less."""
MISSED_INTERVALS = 1.5
"""A look that comes later than this was missed, or failed."""
LIST_SECONDS = 3_600.0
"""How often the series of the whole look-back are listed again: only a series that came and went unseen is missed meanwhile."""
NO_RELEASE = ("", "none")
"""The label `release` of a device without a local model."""

Release = tuple[str, str]
"""Device and the release that it told of."""


@dataclass(frozen=True)
class Questions:
    """The queries of one look."""

    seen: str
    """Time of the newest `dram_device_info` of each series."""
    healthy: str
    """Seconds of unbroken health, of the devices that are there now."""
    activated: str | None = None
    """When each device first switched to the candidate, in the present attempt."""
    gave_up: str | None = None
    """1 for each device that gave up on the candidate, in the present attempt."""


@dataclass(frozen=True)
class Subject:
    """What a look is about."""

    channel: str
    digest: str | None = None
    """The candidate."""
    attempt: int = 0
    attempt_since: datetime | None = None
    lookback_seconds: int = 2_592_000
    silence_seconds: int = 3_600
    """For how long a silent device is not yet offline."""
    interval_seconds: int = 60
    """Seconds between two looks."""


@dataclass(frozen=True)
class Told:
    """The answers to one look's queries."""

    at: datetime
    seen: Answer
    healthy: Answer = NOTHING
    activated: Answer = NOTHING
    gave_up: Answer = NOTHING
    listed: Answer | None = None
    """The series of the look-back; None where they were not asked for."""

    @property
    def trouble(self) -> Trouble | None:
        """The first thing that went wrong."""
        answers = (self.seen, self.healthy, self.activated, self.gave_up, self.listed)
        return next((answer.trouble for answer in answers if answer and answer.trouble), None)


@dataclass(frozen=True)
class Sighting:
    """A device as it was last seen."""

    labels: Mapping[str, str]
    at: datetime
    healthy_since: datetime | None = None

    @property
    def release(self) -> str | None:
        """Digest of the release that it ran."""
        told = self.labels.get("release", "")
        return None if told in NO_RELEASE else told


@dataclass(frozen=True)
class Memory:
    """All that the looks so far have shown."""

    looked_at: datetime | None = None
    whole_since: datetime | None = None
    """Since when every look came in time and heard of somebody: before, a device's silence may have been the telemetry's."""
    sightings: Mapping[str, Sighting] = field(default_factory=dict)
    """By device."""
    listed_at: datetime | None = None
    listed: tuple[Mapping[str, str], ...] = ()
    """Label sets of devices that were there during the look-back, the latest attempt's first."""
    about: tuple[int, str | None] = (0, None)
    """The attempt and the candidate that the rest is about."""
    activated_at: Mapping[str, datetime] = field(default_factory=dict)
    gave_up: frozenset[str] = frozenset()

    def is_list_due(self, at: datetime) -> bool:
        """Whether the series of the look-back have to be listed."""
        return self.listed_at is None or abs((at - self.listed_at).total_seconds()) >= LIST_SECONDS

    def inventory(self) -> Inventory:
        """The devices that were seen during the look-back."""
        seen = ((one.labels, one.at) for one in self.sightings.values())
        return inventory_of_series([*seen, *((labels, None) for labels in self.listed)])

    def reports(self, subject: Subject) -> dict[str, DeviceReport]:
        """What each device told last."""
        grace = timedelta(seconds=FRESH_INTERVALS * subject.interval_seconds)
        excused = self.whole_since is None or self.looked_at is None or self.looked_at - self.whole_since < grace
        return {
            device: DeviceReport(
                last_seen=one.at,
                release=one.release,
                healthy_since=one.healthy_since,
                activated_at=self.activated_at.get(device),
                gave_up_on=self.about[1] if device in self.gave_up else None,
                excused=excused,
            )
            for device, one in self.sightings.items()
        }


def list_selector(subject: Subject) -> str:
    """The series that tell which devices there are."""
    return f'dram_device_info{{channel="{subject.channel}"}}'


def questions(subject: Subject, memory: Memory, at: datetime) -> Questions:
    """What to ask at a moment."""
    channel = f'channel="{subject.channel}"'
    back = _horizon(subject, memory, at)
    seen = _with_past("max", f"timestamp(dram_device_info{{{channel}}})", _seen_ranges(back))
    healthy = f"dram_device_healthy_seconds{{{channel}}}"
    if subject.digest is None:
        return Questions(seen, healthy)
    of_candidate = f'{channel}, release="{subject.digest}"'
    age, gave_up = f"dram_device_release_seconds{{{of_candidate}}}", f"dram_device_gave_up{{{of_candidate}}}"
    return Questions(
        seen,
        healthy,
        activated=_in_attempt("min", f"timestamp({age}) - {age}", age, subject, back, at),
        gave_up=_in_attempt("max", f"{gave_up} > 0", gave_up, subject, back, at),
    )


def _in_attempt(pick: str, expression: str, series: str, subject: Subject, back: int, at: datetime) -> str:
    """What devices told while they took part in the present attempt: an earlier one of the same release is another story.

    A sample of before stays visible for LIVE_SECONDS, so it also has to be as new as what tells of the attempt.
    """
    info = f'dram_device_info{{channel="{subject.channel}", attempt="{subject.attempt}"}}'
    taking_part = f"max by (channel, device) (timestamp({info}))"
    told = (
        f"{expression} and (timestamp({series}) + {SAME_SECONDS} >= on (channel, device) group_left () {taking_part})"
    )
    span = min(back, int(_age(subject, at)))
    return _with_past(pick, f"({told})", (_range(span, ATTEMPT_POINTS),) if span > 0 else ())


def _with_past(pick: str, expression: str, ranges: Iterable[str]) -> str:
    """The expression now, or what it was at some point of the ranges; of those that are older the earlier ones count."""
    past = [f"{pick}_over_time({expression}{each})" for each in ranges]
    return " or ".join([*past, expression] if pick == "min" else [expression, *past])


def _seen_ranges(back: int) -> tuple[str, ...]:
    near = (f"[{min(back, NEAR_SECONDS)}s:{NEAR_STEP_SECONDS}s]",) if back else ()
    return (*near, _range(back, FAR_POINTS)) if back > NEAR_SECONDS else near


def _range(seconds: int, points: int) -> str:
    """The range of a subquery, with so many points at most."""
    step = max(FINEST_STEP_SECONDS, -(-seconds // points))
    return f"[{seconds}s:{step}s]"


def remembered(memory: Memory, told: Told, subject: Subject) -> Memory:
    """What is known after a look whose answers are whole; devices that nobody saw during the look-back are forgotten."""
    about = (subject.attempt, subject.digest)
    same = memory.about == about
    activated = dict(memory.activated_at) if same else {}
    for device, moment in _moments(told.activated, told.at):
        activated[device] = min(moment, activated.get(device, moment))
    oldest = told.at - timedelta(seconds=subject.lookback_seconds)
    sightings = {device: one for device, one in memory.sightings.items() if one.at >= oldest} | _sightings(memory, told)
    after = Memory(
        looked_at=told.at,
        whole_since=memory.whole_since if _goes_on(memory, sightings, told, subject) else told.at,
        sightings=sightings,
        listed_at=memory.listed_at,
        listed=memory.listed,
        about=about,
        activated_at=activated,
        gave_up=(memory.gave_up if same else frozenset()) | _devices(told.gave_up),
    )
    if told.listed is None:
        return after
    return replace(after, listed_at=told.at, listed=_listed(told.listed))


def _goes_on(memory: Memory, sightings: Mapping[str, Sighting], told: Told, subject: Subject) -> bool:
    """Whether no look was missed since the last one, and somebody was heard of lately."""
    if memory.looked_at is None:
        return False
    in_time = 0 <= (told.at - memory.looked_at).total_seconds() <= MISSED_INTERVALS * subject.interval_seconds
    newest = max((one.at for one in sightings.values()), default=None)
    fresh = timedelta(seconds=FRESH_INTERVALS * subject.interval_seconds)
    return in_time and newest is not None and told.at - newest <= fresh


def _sightings(memory: Memory, told: Told) -> dict[str, Sighting]:
    """The devices that were seen anew."""
    newest: dict[str, Sighting] = {}
    for sample in told.seen.samples:
        device, at = sample.labels.get("device", ""), _moment(sample.value, told.at)
        known = newest.get(device) or memory.sightings.get(device)
        if device and at and (known is None or known.at < at):
            newest[device] = Sighting(sample.labels, at)
    ages: dict[Release, float] = {}
    for sample in told.healthy.samples:
        if isfinite(sample.value):
            ages[sample.labels.get("device", ""), sample.labels.get("release", "")] = sample.value
    return {
        device: _with_health(one, ages.get((device, one.labels.get("release", "")), 0.0))
        for device, one in newest.items()
    }


def _with_health(one: Sighting, age: float) -> Sighting:
    """An age of 0 says that it is not healthy; one that reaches beyond all times says nothing."""
    if not 0 < age < one.at.timestamp():
        return one
    return replace(one, healthy_since=one.at - timedelta(seconds=age))


def _moments(answer: Answer, at: datetime) -> Iterator[tuple[str, datetime]]:
    for sample in answer.samples:
        moment = _moment(sample.value, at)
        if moment and sample.labels.get("device"):
            yield sample.labels["device"], moment


def _moment(seconds: float, at: datetime) -> datetime | None:
    """A moment that has been; None for what cannot be one."""
    return datetime.fromtimestamp(seconds, UTC) if isfinite(seconds) and 0 < seconds <= at.timestamp() + 1 else None


def _devices(answer: Answer) -> frozenset[str]:
    return frozenset(
        sample.labels["device"] for sample in answer.samples if sample.value > 0 and sample.labels.get("device")
    )


def _listed(answer: Answer) -> tuple[Mapping[str, str], ...]:
    """The latest attempt's labels first: attempts count up with time, and a listing has no times."""

    def attempt(labels: Mapping[str, str]) -> int:
        told = labels.get("attempt", "")
        return int(told) if re.fullmatch("[0-9]{1,9}", told) else 0

    first: dict[str, Mapping[str, str]] = {}
    for labels in sorted((sample.labels for sample in answer.samples), key=attempt, reverse=True):
        if labels.get("device"):
            first.setdefault(labels["device"], labels)
    return tuple(first.values())


def _horizon(subject: Subject, memory: Memory, at: datetime) -> int:
    """How far back a look asks: to the look before, or as far as anything counts; 0 where the present tells all."""
    if memory.looked_at is None:
        asked = max(_age(subject, at), float(subject.silence_seconds))
    else:
        asked = abs((at - memory.looked_at).total_seconds())
        if asked <= LATE_SECONDS:
            return 0
    return int(min(asked + LIVE_SECONDS, LONGEST_HORIZON_SECONDS))


def _age(subject: Subject, at: datetime) -> float:
    """Seconds since the attempt began."""
    return (at - subject.attempt_since).total_seconds() if subject.attempt_since else 0.0
