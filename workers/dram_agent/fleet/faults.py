"""What goes wrong with devices of an imagined fleet.

A fault of the candidate begins so many seconds after a device has activated it, and ends when the device leaves it.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dram_workers.model import Model

Moment = Annotated[int, Field(ge=-31_536_000, le=31_536_000)]


class _Part(Model):
    """A fault hits a part of its group."""

    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the group's devices; at least one. The same devices for equal shares."""


class _OfCandidate(_Part):
    after_seconds: Annotated[int, Field(ge=0, le=31_536_000)] = 0
    """How long after its activation the candidate turns bad."""


class Slow(_OfCandidate):
    """Requests take longer."""

    fault: Literal["Slow"]
    factor: Annotated[float, Field(gt=0, le=1000)] = 5.0
    """How many times as long."""


class Errors(_OfCandidate):
    """Requests fail."""

    fault: Literal["Errors"]
    ratio: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share that fails."""


class Wrong(_Part):
    """Golden items are answered badly; a device tries them before it serves a release."""

    fault: Literal["Wrong"]
    ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the golden items that is still answered well."""


class Hungry(_OfCandidate):
    """The model takes more memory."""

    fault: Literal["Hungry"]
    factor: Annotated[float, Field(gt=0, le=1000)] = 2.0
    """How many times as much."""


class Fallback(_OfCandidate):
    """The cloud has to serve."""

    fault: Literal["Fallback"]
    ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the requests that it serves."""


class Crash(_OfCandidate):
    """The model's process ends again and again. On trial the device falls back; later the cloud serves."""

    fault: Literal["Crash"]


class SmokeTest(_Part):
    """The candidate fails its smoke test, so the device never serves it."""

    fault: Literal["SmokeTest"]


class Silent(_OfCandidate):
    """The device goes on, and tells nothing any more, also after it has left the candidate."""

    fault: Literal["Silent"]


class Offline(_Part):
    """The device is switched off, or has no network: it neither polls nor tells."""

    fault: Literal["Offline"]
    from_seconds: Moment = 0
    """When it goes, in seconds since the start."""
    until_seconds: Moment | None = None
    """When it comes back; absent is never."""

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> "Offline":
        if self.until_seconds is not None and self.until_seconds <= self.from_seconds:
            raise ValueError("untilSeconds has to be after fromSeconds")
        return self


class ClockSkew(_Part):
    """The device's clock is wrong."""

    fault: Literal["ClockSkew"]
    seconds: Annotated[int, Field(ge=-315_360_000, le=315_360_000)]
    """How far it is ahead; negative is behind."""


Fault = Annotated[
    Slow | Errors | Wrong | Hungry | Fallback | Crash | SmokeTest | Silent | Offline | ClockSkew,
    Field(discriminator="fault"),
]
"""Any of them, by its name in `fault`."""
