"""From one look at a metric to what it means for the rollout. Nothing but a fresh, single, finite figure ever lets anything pass."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from dram_operator.core.rollout.answers import ERRORS, Answer, Trouble, staleness, trouble_of_number, trouble_of_one
from dram_operator.core.rollout.sequential import Comparison, Reading

LARGEST_COUNT = 1_000_000
"""Counters of looks stop here."""


class MissingData(StrEnum):
    """What to do when there is no figure. To pass is not among it."""

    WAIT = "Wait"
    """Go on looking."""
    PAUSE = "Pause"
    """Pause the rollout until somebody resumes it."""
    FAIL = "Fail"
    """Count it as a look that failed."""


class Outcome(StrEnum):
    """What one look showed. Status remembers the first letters."""

    PASS = "Pass"  # noqa: S105 -- a verdict
    BREACH = "Breach"
    INCONCLUSIVE = "Inconclusive"
    """A figure that decides nothing: too few samples, or a limit between the bounds."""
    ERROR = "Error"
    """No answer."""
    MISSING = "Missing"
    """An answer without a usable figure."""

    @property
    def letter(self) -> str:
        """As in the row of looks."""
        return self.value[0]


class Verdict(StrEnum):
    """What a metric says to the rollout."""

    GO = "Go"
    WAIT = "Wait"
    PAUSE = "Pause"
    ROLL_BACK = "RollBack"


@dataclass(frozen=True)
class Bounds:
    """The limits of a metric without control; at least one is given."""

    highest: float | None = None
    lowest: float | None = None
    min_samples: int = 0
    """Fewer prove nothing."""
    interval_seconds: int = 60


@dataclass(frozen=True)
class Look:
    """One look at one metric, judged."""

    outcome: Outcome
    value: float | None = None
    trouble: Trouble | None = None
    support: float | None = None
    message: str = ""


@dataclass(frozen=True)
class Limits:
    """How many looks of a kind end a metric's patience."""

    failure_limit: int = 2
    """Breaches among the last `looks` that roll back."""
    looks: int = 5
    inconclusive_limit: int = 5
    """Inconclusive looks in a row after which people are asked."""
    error_limit: int = 10
    """Errors in a row after which people are asked, or `missing_data` fails; fewer are waited out, whatever it says."""
    missing_data: MissingData = MissingData.WAIT


@dataclass(frozen=True)
class Tally:
    """What is remembered of a metric's looks in a step: four counters apart."""

    looks: str = ""
    """The last looks, oldest first, a letter each."""
    inconclusive: int = 0
    """Inconclusive looks in a row."""
    errors: int = 0
    """Errors in a row."""
    missing: int = 0
    """Looks in a row without usable data."""

    @property
    def failed(self) -> int:
        """Breaches among the last looks."""
        return self.looks.count(Outcome.BREACH.letter)


@dataclass(frozen=True)
class Ruling:
    """The verdict of a metric, and why."""

    verdict: Verdict
    message: str = field(default="", compare=False)


def judge_bounds(answer: Answer, bounds: Bounds, now: datetime) -> Look:
    """Judge one figure by fixed limits; `now` is the time of the query."""
    trouble = answer.trouble or trouble_of_one(answer) or staleness(answer, bounds.interval_seconds, now)
    if trouble:
        return without_figure(trouble)
    value = answer.samples[0].value
    look = Look(Outcome.PASS, value, support=answer.support)
    support = answer.support or 0.0
    if not support >= bounds.min_samples:
        return replace(
            look, outcome=Outcome.INCONCLUSIVE, message=f"rests on {support:g} of {bounds.min_samples} samples"
        )
    if bounds.highest is not None and value > bounds.highest:
        return replace(look, outcome=Outcome.BREACH, message=f"{value:.6g} is above {bounds.highest:.6g}")
    if bounds.lowest is not None and value < bounds.lowest:
        return replace(look, outcome=Outcome.BREACH, message=f"{value:.6g} is below {bounds.lowest:.6g}")
    return look


def judge_comparison(comparison: Comparison, trouble: Trouble | None) -> Look:
    """Judge a comparison with control. What breached stays breached; trouble of this look hides a pass."""
    if comparison.breached:
        message = f"worse than control by at least {comparison.lower:.6g}"
        return Look(Outcome.BREACH, comparison.lower, support=comparison.pairs, message=message)
    if trouble:
        return without_figure(trouble)
    if comparison.passed:
        message = f"worse than control by at most {comparison.upper:.6g}"
        return Look(Outcome.PASS, comparison.upper, support=comparison.pairs, message=message)
    message = f"{comparison.pairs} pairs of devices decide nothing yet"
    return Look(Outcome.INCONCLUSIVE, comparison.upper, support=comparison.pairs, message=message)


def without_figure(trouble: Trouble) -> Look:
    """A look that brought no figure."""
    return Look(Outcome.ERROR if trouble in ERRORS else Outcome.MISSING, trouble=trouble, message=trouble.value)


@dataclass(frozen=True)
class Exposure:
    """Which devices one window counts, by their names in the telemetry: those that were in their arm for the whole of it."""

    window: int
    treated: Mapping[str, int]
    """Salted hashes by name."""
    control: Mapping[str, int]
    interval_seconds: int = 60


def readings_of(answer: Answer, exposure: Exposure, now: datetime) -> tuple[tuple[Reading, ...], Trouble | None]:
    """What each device showed in a window. A device without a number shows nothing; any other trouble takes the whole window."""
    trouble = answer.trouble or staleness(answer, exposure.interval_seconds, now)
    names = [sample.labels.get("device", "") for sample in answer.samples]
    if not trouble and "" in names:
        trouble = Trouble.NO_DEVICE
    if not trouble and len(set(names)) < len(names):
        trouble = Trouble.SEVERAL_SERIES
    if trouble:
        return (), trouble
    found = [
        Reading(hashes[name], treated, exposure.window, sample.value)
        for treated, hashes in ((True, exposure.treated), (False, exposure.control))
        for name, sample in zip(names, answer.samples, strict=True)
        if name in hashes and trouble_of_number(sample.value) is None
    ]
    return tuple(found), None if found else Trouble.EMPTY


def tallied(tally: Tally, outcome: Outcome, limits: Limits, *, is_due: bool) -> Tally:
    """What is remembered after one more look.

    Before a figure is due, while devices are still taking up the candidate, nothing is held against a look that has none: only breaches and errors count.
    """
    if not is_due and outcome in (Outcome.INCONCLUSIVE, Outcome.MISSING):
        return replace(tally, errors=0)
    return Tally(
        looks=(tally.looks + outcome.letter)[-limits.looks :],
        inconclusive=_in_a_row(tally.inconclusive, outcome is Outcome.INCONCLUSIVE),
        errors=_in_a_row(tally.errors, outcome is Outcome.ERROR),
        missing=_in_a_row(tally.missing, outcome is Outcome.MISSING),
    )


def _in_a_row(so_far: int, goes_on: bool) -> int:
    return min(LARGEST_COUNT, so_far + 1) if goes_on else 0


def rule(tally: Tally, latest: Outcome, limits: Limits) -> Ruling:
    """What the looks so far mean. Only a latest look that passed lets a metric pass."""
    counted = Outcome.BREACH.letter + (Outcome.MISSING.letter if limits.missing_data is MissingData.FAIL else "")
    failures = sum(letter in counted for letter in tally.looks)
    if failures >= limits.failure_limit:
        return Ruling(Verdict.ROLL_BACK, f"{failures} of the last {len(tally.looks)} looks are breaches")
    if tally.errors >= limits.error_limit:
        verdict = Verdict.ROLL_BACK if limits.missing_data is MissingData.FAIL else Verdict.PAUSE
        return Ruling(verdict, f"{tally.errors} queries in a row failed")
    if tally.missing and limits.missing_data is MissingData.PAUSE:
        return Ruling(Verdict.PAUSE, "there is no usable data")
    if tally.inconclusive >= limits.inconclusive_limit:
        return Ruling(Verdict.PAUSE, f"{tally.inconclusive} looks in a row decide nothing")
    return Ruling(Verdict.GO if latest is Outcome.PASS else Verdict.WAIT)
