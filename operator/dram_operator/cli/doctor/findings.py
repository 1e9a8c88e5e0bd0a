"""What the doctor says of one thing that it looked at."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a check came out."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"
    """It cannot be told from here, or with these rights; no fault of the installation."""


MARKS = {Outcome.GOOD: "✓", Outcome.BAD: "✗", Outcome.UNKNOWN: "–"}


@dataclass(frozen=True)
class Finding:
    """One line."""

    check: str
    outcome: Outcome
    message: str
    remedy: str = ""
    """What to do; empty where all is well."""

    def line(self) -> str:
        """The finding for people."""
        return f"{MARKS[self.outcome]} {self.check}: {self.message}" + (f"\n    → {self.remedy}" if self.remedy else "")


def good(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, Outcome.GOOD, message)


def bad(check: str, message: str, remedy: str) -> Finding:
    """Something is wrong."""
    return Finding(check, Outcome.BAD, message, remedy)


def unknown(check: str, message: str, remedy: str = "") -> Finding:
    """Nobody can tell from here."""
    return Finding(check, Outcome.UNKNOWN, message, remedy)


Findings = AsyncIterator[Finding]
Check = Callable[[], Findings]
