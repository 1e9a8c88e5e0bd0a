"""What a metrics server answered, and everything that may be wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import isinf, isnan

STALE_INTERVALS = 3
"""A sample older than this many intervals says nothing about now."""


class Trouble(StrEnum):
    """Why a look gave no figure."""

    UNREACHABLE = "Unreachable"
    """No connection, or no trusted one."""
    TIMED_OUT = "TimedOut"
    """No answer in time."""
    HTTP_STATUS = "HttpStatus"
    """An answer with a 4xx or 5xx status."""
    REDIRECTED = "Redirected"
    """An answer that points elsewhere; it is not followed."""
    MALFORMED = "Malformed"
    """An answer that is not what a Prometheus gives."""
    TOO_LARGE = "TooLarge"
    """An answer beyond the size limit."""
    PARTIAL = "Partial"
    """An answer that warns about itself."""
    NOT_ASKED = "NotAsked"
    """The query cannot be asked: it is no PromQL, or the installation has no such endpoint."""
    EMPTY = "Empty"
    """No series."""
    NOT_A_NUMBER = "NotANumber"
    """NaN, e.g. a ratio without requests."""
    INFINITE = "Infinite"
    """+Inf or -Inf."""
    STALE = "Stale"
    """The newest sample of one of its selectors is too old, or there is none."""
    SEVERAL_SERIES = "SeveralSeries"
    """More than one series where one figure is asked for, or two of one device."""
    NO_DEVICE = "NoDevice"
    """A series without a device where each device's figure is asked for."""


ERRORS = frozenset(
    {
        Trouble.UNREACHABLE,
        Trouble.TIMED_OUT,
        Trouble.HTTP_STATUS,
        Trouble.REDIRECTED,
        Trouble.MALFORMED,
        Trouble.TOO_LARGE,
        Trouble.PARTIAL,
        Trouble.NOT_ASKED,
    }
)
"""Troubles of the way to the figure; all others are troubles of the data."""


@dataclass(frozen=True)
class Sample:
    """One series of an instant query."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Answer:
    """What the queries of one look brought."""

    samples: tuple[Sample, ...] = ()
    trouble: Trouble | None = None
    """Why there are no samples, as the client saw it."""
    newest: datetime | None = None
    """The newest sample of that selector whose newest is the oldest; None when one has none at all."""
    support: float | None = None
    """How many requests, devices or points the figure rests on."""


def trouble_of_one(answer: Answer) -> Trouble | None:
    """Why the answer is not one finite number; None when it is."""
    if not answer.samples:
        return Trouble.EMPTY
    if len(answer.samples) > 1:
        return Trouble.SEVERAL_SERIES
    return trouble_of_number(answer.samples[0].value)


def trouble_of_number(value: float) -> Trouble | None:
    """Why this is no figure; None when it is one."""
    if isnan(value):
        return Trouble.NOT_A_NUMBER
    return Trouble.INFINITE if isinf(value) else None


def staleness(answer: Answer, interval_seconds: int, now: datetime) -> Trouble | None:
    """Whether the answer rests on samples that are too old; `now` is the time of the query."""
    oldest = now - timedelta(seconds=STALE_INTERVALS * interval_seconds)
    return None if answer.newest and answer.newest >= oldest else Trouble.STALE
