"""What a comparison of treated with control devices can see, before it has seen it."""

from collections.abc import Iterable, Sequence
from math import log, sqrt
from statistics import fmean

from dram_operator.core.rollout.sequential import (
    BETS,
    FEWEST_CONTROL,
    Question,
    Scale,
    group_sizes,
    middle_of,
    scale_of,
    scaling_devices,
)

POWER_Z = 1.2815515655446004
"""The 90 % point of the normal distribution."""
HALVINGS = 10
"""To a five-hundredth of the scale: what is told is what an estimate is worth."""
MOST_LOOKED_AT = 500
"""Control devices from which the smallest visible effect is estimated."""


def smallest_effect(control: Sequence[float], question: Question, treated_devices: int) -> float | None:
    """The smallest harm, in the metric's unit, that this step finds with a probability of 90 %; None when it finds none.

    It is the whole difference to the control, so never less than the margin. `control` holds what control devices show, one value a device, in the order
    of their hashes. Judged by pairs made of them alone, for a harm that adds the same to every device and for one in proportion to its value, whichever
    is harder to see. The sum of the logarithms is taken as normal.
    """
    sign = -1.0 if question.lower_is_worse else 1.0
    values = [sign * value for value in control]
    pairs = _pairs(treated_devices, len(values), question.treated_share)
    if len(values) < FEWEST_CONTROL or pairs == 0:
        return None
    values = values[:MOST_LOOKED_AT]
    scale = scale_of(values, question.margin)
    sizes, placed = group_sizes(question.treated_share), _placed(values, scale)
    # A partner is half of the circle away, so that no device is compared with itself.
    partners = _running_means([*placed[len(placed) // 2 :], *placed[: len(placed) // 2]], sizes[1])

    def is_seen(harm: float) -> bool:
        treated = (_running_means(_placed(shifted, scale), sizes[0]) for shifted in _harmed(values, harm))
        imagined = ([(one - other + 1) / 2 for one, other in zip(arm, partners, strict=True)] for arm in treated)
        return all(_outgrows_mostly(each, question, scale, pairs) for each in imagined)

    low, high = question.margin, question.margin + 2 * scale.width
    if not is_seen(high):
        return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_seen(middle) else (middle, high)
    return high


def _pairs(treated: int, control: int, treated_share: float) -> int:
    wide, deep = group_sizes(treated_share)
    return min(treated // wide, (control - scaling_devices(control)) // deep)


def _harmed(values: Sequence[float], harm: float) -> list[list[float]]:
    mean = fmean(values)
    added = [value + harm for value in values]
    return [added, [value * (1 + harm / mean) for value in values]] if mean > 0 else [added]


def _placed(values: Iterable[float], scale: Scale) -> list[float]:
    low, width = scale.low, scale.width
    return [min(1.0, max(0.0, (value - low) / width)) for value in values]


def _running_means(values: Sequence[float], size: int) -> Sequence[float]:
    """Means of every `size` values that follow each other, in a circle."""
    if size == 1:
        return values
    circle = [*values, *values]
    return [sum(circle[start : start + size]) / size for start in range(len(values))]


def _outgrows_mostly(imagined: Sequence[float], question: Question, scale: Scale, pairs: int) -> bool:
    mean = middle_of(question.margin / scale.width)
    needed = log(len(BETS) / question.alpha)
    for bet in BETS:
        gains = [log(max(1 + bet * (pair / mean - 1), 1e-9)) for pair in imagined]
        mean_gain = sum(gains) / len(gains)
        variance = sum((gain - mean_gain) ** 2 for gain in gains) / len(gains)
        if pairs * mean_gain - POWER_Z * sqrt(pairs * variance) >= needed:
            return True
    return False
