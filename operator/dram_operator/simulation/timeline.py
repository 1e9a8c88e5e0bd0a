"""What a simulation saw: transitions as lines, samples for plots, and how it ended."""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a simulated attempt ended."""

    COMPLETED = "Completed"
    """The candidate became stable."""
    ROLLED_BACK = "RolledBack"
    """The devices were sent back."""
    STALLED = "Stalled"
    """Only a person could have gone on, and nobody did."""
    UNFINISHED = "Unfinished"
    """It was still on its way, forward or back, when the time was over."""


@dataclass(frozen=True)
class Line:
    """One transition."""

    seconds: int
    """Since the start."""
    at: str
    """The same as a moment, RFC 3339."""
    type: str
    """Normal or Warning, as of an Event; Waits says why nothing moves; Fleet is what the fleet file had happen."""
    reason: str
    message: str


@dataclass(frozen=True)
class Look:
    """What one metric showed at a pass."""

    verdict: str
    value: float | None
    limit: float | None
    upper: float | None
    """Upper bound of the difference to control, where it is compared."""


@dataclass(frozen=True)
class Sample:
    """The state of everything at a pass."""

    seconds: int
    step: int
    """From 1; 0 while there is none."""
    percent: int
    devices: dict[str, int]
    """Devices by what they truly are, each in one state."""
    looks: dict[str, Look]


@dataclass
class Timeline:
    """Everything that a simulation tells."""

    lines: list[Line] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    verdict: Verdict = Verdict.UNFINISHED
    message: str = ""
    passes: int = 0
    """How often `decide` was asked."""

    def to_json(self, **more: Any) -> str:
        """The timeline as one JSON document."""
        told = {"verdict": self.verdict, "message": self.message, "passes": self.passes, **more}
        samples = [asdict(one) for one in self.samples]
        return json.dumps({**told, "lines": [asdict(one) for one in self.lines], "samples": samples}, indent=1)


def clock(seconds: int) -> str:
    """Time since the start as people read it, e.g. `1d 02:30:00`."""
    days, rest = divmod(seconds, 86_400)
    return f"{days}d {rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
