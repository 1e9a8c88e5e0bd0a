"""One-sided 95 % bounds for every kind of figure that a gate decides on.

Each function gives (low, high): the figure is at least `low` with 95 % confidence, and at most `high` with 95 %.
"""

import math
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 4000
FEWEST_CLUSTERS = 5
"""Below this a bootstrap only repeats its few observations and claims a certainty that is not there."""

Bounds = tuple[float | None, float | None]


def proportion_bounds(passed: int, total: int) -> Bounds:
    """Exact bounds of a rate: 30 of 30 proves at least 0.905 (Clopper and Pearson 1934)."""
    # Not scipy.stats, whose import takes two seconds of every stage.
    from scipy.special import betaincinv

    low = 0.0 if passed == 0 else float(betaincinv(passed, total - passed + 1, 1 - CONFIDENCE))
    high = 1.0 if passed == total else float(betaincinv(passed + 1, total - passed, CONFIDENCE))
    return low, high


def mean_bounds(values: Sequence[float]) -> Bounds:
    """Bounds of a mean, by Student's t; of a difference when the values are paired differences. None below two."""
    from scipy.special import stdtrit

    if len(values) < 2:
        return None, None
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    reach = float(stdtrit(len(values) - 1, CONFIDENCE)) * error
    return mean - reach, mean + reach


def ratio_bounds(numerators: Sequence[float], denominators: Sequence[float], seed: int) -> Bounds:
    """Bounds of sum(numerators) / sum(denominators), by the paired percentile bootstrap (Efron and Tibshirani 1993).

    A pair is one independent observation: an item, or an answer with all its tokens. None below five pairs, or where
    a resample has nothing to divide by.
    """
    above, below = np.asarray(numerators, float), np.asarray(denominators, float)
    if len(above) < FEWEST_CLUSTERS:
        return None, None
    drawn = np.random.default_rng(seed).integers(0, len(above), (RESAMPLES, len(above)))
    divisors = below[drawn].sum(axis=1)
    if not (divisors > 0).all():
        return None, None
    low, high = np.quantile(above[drawn].sum(axis=1) / divisors, [1 - CONFIDENCE, CONFIDENCE])
    return float(low), float(high)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest observed value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def quantile_bounds(values: Sequence[float], share: float) -> Bounds:
    """Distribution-free bounds of a quantile, by order statistics (Thompson 1936).

    A bound is None when there are too few values: an upper one takes 59 values at 0.95 and 299 at 0.99.
    """
    from scipy.special import bdtr

    ordered, count = sorted(values), len(values)
    # The k-th smallest value is below the quantile with the probability that at least k of n values are.
    below = bdtr(np.arange(count), count, share)
    highs = np.flatnonzero(below >= CONFIDENCE)
    lows = np.flatnonzero(below <= 1 - CONFIDENCE)
    low = ordered[int(lows[-1])] if len(lows) else None
    high = ordered[int(highs[0])] if len(highs) else None
    return low, high
