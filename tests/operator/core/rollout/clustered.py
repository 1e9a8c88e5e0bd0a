"""Fleets for the comparison, thousands at once: devices that differ (CV 1), a load that follows the day, one window each of fifty."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dram_operator.core.rollout import sequential
from dram_operator.core.rollout.sequential import Question, Reading

Floats = NDArray[np.float64]
LOOKS = 50
REQUESTS = 200
"""Of one device in one window, at the mean load."""
ERRORS = 0.02
"""Mean part of requests that fail."""


@dataclass(frozen=True)
class Fleets:
    """Error ratios of many fleets: one row a fleet. Treated devices in the order of their windows, each with its controls beside it."""

    treated: Floats
    """[fleet, device]"""
    windows: NDArray[np.int64]
    """[fleet, device], ascending: in which of the looks the treated device was measured."""
    control: Floats
    """[fleet, device, partner]: the same window as the treated device's."""
    scaling: Floats
    """[fleet, device]: control devices of the first window that set the scale."""


def fleets(
    count: int, treated: int, partners: int, scaling: int, seed: int, harm: Floats | float = 0.0, factor: float = 1.0
) -> Fleets:
    """Draw fleets; `harm` (one a fleet, or for all) is added to every treated device's error ratio, `factor` multiplies it."""
    random = np.random.default_rng(seed)
    windows = np.sort(random.integers(0, LOOKS, (count, treated)), axis=1)
    windows[:, 0] = 0
    phase = random.uniform(0, 2 * np.pi, (count, 1))

    def ratios(day: Floats, harm: Floats | float, factor: float) -> Floats:
        rate = ERRORS * random.standard_gamma(1.0, day.shape) * day * factor + harm
        requests = 1 + random.poisson(REQUESTS * day)
        return random.binomial(requests, np.clip(rate, 0, 1)) / requests

    day = 1 + 0.6 * np.sin(2 * np.pi * windows / LOOKS + phase)
    each = harm[:, None] if isinstance(harm, np.ndarray) else harm
    beside = np.repeat(day[:, :, None], partners, axis=2)
    first = np.repeat(day[:, :1], scaling, axis=1)
    return Fleets(ratios(day, each, factor), windows, ratios(beside, 0.0, 1.0), ratios(first, 0.0, 1.0))


def breaches(drawn: Fleets, question: Question) -> NDArray[np.bool_]:
    """Which fleets `compare` would find harmed, at any look: the same arithmetic, a row a fleet."""
    deciles = np.quantile(drawn.scaling, [0.1, 0.9], axis=1)
    spread = np.maximum(deciles[1] - deciles[0], sequential.MARGINS_IN_SCALE * question.margin)
    low, high = np.maximum(deciles[0] - spread, 0), deciles[1] + spread
    width = high - low
    treated = np.clip((drawn.treated - low[:, None]) / width[:, None], 0, 1)
    control = np.clip((drawn.control - low[:, None, None]) / width[:, None, None], 0, 1).mean(axis=2)
    mean = (1 + question.margin / width) / 2
    gain = (treated - control + 1) / 2 / mean[:, None] - 1
    capital = np.mean([np.cumprod(1 + bet * gain, axis=1) for bet in sequential.BETS], axis=0)
    reached: NDArray[np.bool_] = capital.max(axis=1) >= 1 / question.alpha
    return reached


def readings(drawn: Fleets, fleet: int) -> list[Reading]:
    """One fleet as the comparison is given it, with values of every control device in every window."""
    found, windows = list[Reading](), drawn.windows[fleet]
    partners, scaling = drawn.control.shape[2], drawn.scaling.shape[1]
    treated = drawn.treated.shape[1]
    for device in range(treated):
        found.append(Reading(10_000 + device, True, int(windows[device]), float(drawn.treated[fleet, device])))
    for number in range(scaling):
        found.append(Reading(number, False, 0, float(drawn.scaling[fleet, number])))
    for device in range(treated):
        for partner in range(partners):
            name = scaling + device * partners + partner
            for window in sorted(set(windows.tolist())):
                value = float(drawn.control[fleet, device, partner]) if window == windows[device] else 0.5
                found.append(Reading(name, False, window, value))
    return found
