"""Treated devices against control devices: a comparison that may be looked at as often as one likes.

Every device gives one value in a step. Devices of the two arms that were measured in the same window are matched, and a gambler bets on the sign of each
matched difference. While the arms do not differ by more than a margin, the gambler's capital is a nonnegative supermartingale: by Ville's inequality it ever
reaches 1/alpha with a probability of at most alpha, whenever and how often it is looked at. What capital excludes is what the confidence sequence excludes.

Method: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", Journal of the Royal Statistical Society B 86 (2024), the
capital process of section 4 with a mixture of constant bets; in the two-sample form of Shekhar and Ramdas, "Nonparametric two-sample testing by betting",
IEEE Transactions on Information Theory 70 (2024). Devices, not requests, are what is independent: requests of one device are alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import fmean, quantiles

BETS = (1.0, 0.5, 0.25, 0.125, 0.0625)
"""Parts of the capital that are bet: one for each octave of how far devices differ, from five to ten thousand pairs."""
LARGEST_GROUP = 10
"""Devices of the larger arm that are matched with one of the smaller: ten leave a tenth of what more could still gain."""
FEWEST_CONTROL = 10
"""Control devices needed before a scale can be set: half of them set it, half are left to compare with."""
MOST_SCALING = 50
SCALING_PART = 5
"""One control device in five sets the scale and is matched with none."""
MARGINS_IN_SCALE = 4.0
"""A scale reaches at least this many times the margin beyond what the control shows."""
BISECTIONS = 16
"""To less than a ten-thousandth of the scale."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one device showed in one window of fixed length."""

    device: int
    """Its salted hash: the order of matching, which has nothing to do with the value."""
    treated: bool
    """Its arm, by assignment."""
    window: int
    """Number of the window, from the start of the step."""
    value: float
    """In the metric's unit, finite."""


@dataclass(frozen=True)
class Question:
    """What one metric is asked in one step. It has to stay the same during the step."""

    alpha: float
    """The probability of a false alarm that this metric may spend in this step; see `share`."""
    treated_share: float
    """Part of the devices that the step treats, in (0, 1); it decides how many devices are matched with one."""
    margin: float
    """How much worse than control the treated devices may be, in the metric's unit: a breach is certainly more, a pass certainly less."""
    lower_is_worse: bool = False


@dataclass(frozen=True)
class Comparison:
    """What is known about how much worse the treated devices are, in the metric's unit."""

    lower: float | None
    """With the error probability alpha, they are worse by at least this; None says nothing is known."""
    upper: float | None
    """With the error probability alpha, they are worse by at most this."""
    pairs: int
    breached: bool
    """The lower bound was above the margin, at this look or before."""
    passed: bool
    """The upper bound is below the margin, and nothing breached."""
    evidence: float | None = None
    """Natural logarithm of the largest capital that was made of betting that they are worse by more than the margin."""


@dataclass(frozen=True)
class Scale:
    """The range that values are clipped to. Set by control devices that are matched with none, so known before the first bet."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """The value in [0, 1]."""
        return min(1.0, max(0.0, (value - self.low) / self.width))

    @property
    def width(self) -> float:
        """In the metric's unit."""
        return self.high - self.low


def share(alpha: float, metrics: int, steps: int) -> float:
    """What one metric may spend in one step, so that all of an attempt's stay within alpha (Bonferroni). Looks cost nothing."""
    return alpha / (metrics * steps)


def compare(readings: Iterable[Reading], question: Question) -> Comparison:
    """Decide by all readings of the step so far; the order in which they are given is of no account."""
    return decided(match(readings, question), question)


def match(readings: Iterable[Reading], question: Question) -> "Matching":
    """Match the readings, window by window."""
    windows: dict[int, list[Reading]] = {}
    for reading in readings:
        windows.setdefault(reading.window, []).append(reading)
    matching = Matching(question)
    for window in sorted(windows):
        matching.add(windows[window])
    return matching


class Matching:
    """Devices of the two arms as they are matched: each one once, in the first window in which it has a partner."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._sign = -1.0 if question.lower_is_worse else 1.0
        self.scale: Scale | None = None
        self.pairs: list[float] = []
        """Differences in [0, 1] in the order of their windows: 0.5 where the arms are alike."""
        self.used: set[int] = set()
        """Devices that have given their value."""

    def add(self, window: Iterable[Reading]) -> None:
        """Take in the next window; whoever finds no partner in it waits for the one after."""
        ready: dict[int, Reading] = {}
        for reading in sorted(window, key=lambda reading: (reading.device, reading.value)):
            if reading.device not in self.used:
                ready.setdefault(reading.device, reading)
        treated, control = ([one for one in ready.values() if one.treated is arm] for arm in (True, False))
        if self.scale is None:
            scaling = _scaling(control)
            if not scaling:
                return
            self.scale = scale_of([self._sign * reading.value for reading in scaling], self._question.margin)
            self.used.update(reading.device for reading in scaling)
            control = control[len(scaling) :]
        for groups in _groups(treated, control, self._question.treated_share):
            self._pair(self.scale, groups)

    def _pair(self, scale: Scale, groups: tuple[list[Reading], list[Reading]]) -> None:
        for group in groups:
            self.used.update(reading.device for reading in group)
        treated, control = (fmean(scale.place(self._sign * reading.value) for reading in group) for group in groups)
        self.pairs.append((treated - control + 1) / 2)


def decided(matching: Matching, question: Question) -> Comparison:
    """What the pairs say."""
    scale, pairs = matching.scale, matching.pairs
    if scale is None or not pairs:
        return Comparison(None, None, 0, breached=False, passed=False)
    worst, mirrored = question.margin / scale.width, [1 - pair for pair in pairs]
    breached = _outgrows(pairs, middle_of(worst), question.alpha)
    return Comparison(
        lower=(2 * _bound(pairs, question.alpha) - 1) * scale.width,
        upper=(1 - 2 * _bound(mirrored, question.alpha)) * scale.width,
        pairs=len(pairs),
        breached=breached,
        passed=not breached and _outgrows(mirrored, middle_of(-worst), question.alpha),
        evidence=_evidence(pairs, middle_of(worst)),
    )


def _scaling(control: list[Reading]) -> list[Reading]:
    return control[: scaling_devices(len(control))]


def scaling_devices(control: int) -> int:
    """How many of so many control devices set the scale; none when it cannot be set."""
    return 0 if control < FEWEST_CONTROL else min(MOST_SCALING, max(FEWEST_CONTROL // 2, control // SCALING_PART))


def scale_of(values: Sequence[float], margin: float) -> Scale:
    """One spread (10 to 90 %) beyond what most control devices show, but not across a zero that none of them crosses."""
    deciles = quantiles(values, n=10, method="inclusive")
    spread = max(deciles[-1] - deciles[0], MARGINS_IN_SCALE * margin, abs(deciles[-1]) / 1000, 1e-9)
    low, high = deciles[0] - spread, deciles[-1] + spread
    if min(values) >= 0:
        return Scale(max(low, 0.0), high)
    return Scale(low, min(high, 0.0) if max(values) <= 0 else high)


def group_sizes(treated_share: float) -> tuple[int, int]:
    """How many treated and how many control devices make a pair."""
    ratio = (1 - treated_share) / treated_share
    if ratio >= 1:
        return 1, min(LARGEST_GROUP, int(ratio + 1e-9))
    return min(LARGEST_GROUP, int(1 / ratio + 1e-9)), 1


def _groups(
    treated: list[Reading], control: list[Reading], treated_share: float
) -> list[tuple[list[Reading], list[Reading]]]:
    wide, deep = group_sizes(treated_share)
    count = min(len(treated) // wide, len(control) // deep)
    return [(treated[n * wide : (n + 1) * wide], control[n * deep : (n + 1) * deep]) for n in range(count)]


def middle_of(difference: float) -> float:
    """Where a difference in [-1, 1] lies in [0, 1]."""
    return min(1.0, max(1e-9, (1 + difference) / 2))


def _outgrows(pairs: Sequence[float], mean: float, alpha: float) -> bool:
    """Whether betting that the pairs' mean is above `mean` ever made 1/alpha of 1."""
    enough, capital = len(BETS) / alpha, [1.0] * len(BETS)
    for pair in pairs:
        gain = pair / mean - 1
        capital = [part * (1 + bet * gain) for part, bet in zip(capital, BETS, strict=True)]
        if sum(capital) >= enough:
            return True
    return False


def _evidence(pairs: Sequence[float], mean: float) -> float:
    logs, best = [0.0] * len(BETS), 0.0
    for pair in pairs:
        gain = pair / mean - 1
        logs = [one + log(max(1 + bet * gain, 1e-12)) for one, bet in zip(logs, BETS, strict=True)]
        top = max(logs)
        best = max(best, top + log(sum(exp(one - top) for one in logs) / len(BETS)))
    return best


def _bound(pairs: Sequence[float], alpha: float) -> float:
    """The largest mean that the capital excludes together with all below: capital falls as the mean grows."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _outgrows(pairs, middle, alpha) else (low, middle)
    return low
