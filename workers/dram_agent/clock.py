"""The device's idea of the time, which an attacker at the network and a dead battery must not turn back."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dram_agent.disk import Disk

BUILT_AT = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
"""No device runs this code before it was written. Seconds since the epoch."""
FILE = "clock.json"


@dataclass
class ClockGuard:
    """`max(clock, last trusted, build date)`: a clock that is behind never makes expired metadata valid again.

    Trusted is what signed metadata proves, not what the clock said: a clock that ran ahead for a while leaves no trace.
    """

    disk: Disk
    wall: Callable[[], float] = time.time
    built_at: float = BUILT_AT
    trusted: float = field(init=False, default=0.0)
    """The latest moment that a signature proves to have passed, in seconds since the epoch."""

    def __post_init__(self) -> None:
        saved = self.disk.read(FILE)
        try:
            self.trusted = float(json.loads(saved)["trusted"]) if saved else 0.0
        except (ValueError, KeyError, TypeError):
            self.trusted = 0.0

    def now(self) -> float:
        """Seconds since the epoch, never before what is proven."""
        return max(self.wall(), self.trusted, self.built_at)

    def moment(self) -> datetime:
        """The same as a datetime in UTC."""
        return datetime.fromtimestamp(self.now(), UTC)

    def prove(self, signed_at: float) -> None:
        """Remember that something was signed then."""
        if signed_at > self.trusted:
            self.trusted = signed_at
            self.disk.write(FILE, json.dumps({"trusted": signed_at}).encode())

    def forget(self) -> None:
        """Who proved the time is no longer believed."""
        self.trusted = 0.0
        self.disk.remove(FILE)
