"""From recorded counters to the figures that the presets' queries would give: of an arm, and of each device."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dram_agent.buckets import LATENCY_BUCKETS
from dram_operator.api.rollout_analysis import Preset
from dram_operator.simulation.population import Floats
from dram_operator.simulation.telemetry import CLOUD, ERROR, OK, Counts

Bools = NDArray[np.bool_]
EDGES = np.array([0.0, *LATENCY_BUCKETS])
QUANTILES = {Preset.LATENCY_P50: 0.5, Preset.LATENCY_P95: 0.95, Preset.LATENCY_P99: 0.99}
OVER_ARM: dict[Preset | None, Callable[[Floats], np.float64]] = {Preset.MEMORY_BYTES: np.max}
"""How a gauge of many devices becomes one figure; all others by their mean."""


@dataclass(frozen=True)
class Gauges:
    """What devices show beside their counters; NaN where they show nothing."""

    golden: Floats
    memory: Floats
    measures: dict[str, Floats]

    def of(self, preset: Preset | None, name: str) -> Floats:
        """The gauge that a metric reads: a preset's, or one's own by the metric's name."""
        if preset is Preset.GOLDEN_RATIO:
            return self.golden
        return self.memory if preset is Preset.MEMORY_BYTES else self.measures[name]


def figure(preset: Preset | None, name: str, counts: Counts, gauges: Gauges, arm: Bools) -> float | None:
    """One figure of an arm, from its increases in a window; None where a query would give no series."""
    if not arm.any():
        return None
    if is_counted(preset):
        return float(_ratio_or_quantile(preset, counts[arm].sum(axis=0, keepdims=True))[0])
    shown = gauges.of(preset, name)[arm]
    shown = shown[~np.isnan(shown)]
    return float(OVER_ARM.get(preset, np.mean)(shown)) if shown.size else None


def each_device(preset: Preset | None, name: str, counts: Counts, gauges: Gauges) -> Floats:
    """One figure a device; NaN where it has none."""
    return _ratio_or_quantile(preset, counts) if is_counted(preset) else gauges.of(preset, name)


def requests(preset: Preset | None, counts: Counts, arm: Bools) -> float:
    """How many requests of an arm a figure can rest on: those that devices served, but for the fallback ratio."""
    first = CLOUD if preset is Preset.FALLBACK_RATIO else ERROR
    return float(counts[arm, first:].sum())


def is_counted(preset: Preset | None) -> bool:
    """Whether the figure is made of counters, and not of a gauge."""
    return preset in QUANTILES or preset in (Preset.ERROR_RATIO, Preset.FALLBACK_RATIO)


def _ratio_or_quantile(preset: Preset | None, counts: Counts) -> Floats:
    served = counts[:, ERROR:].sum(axis=1)
    if preset is Preset.ERROR_RATIO:
        return _divided(counts[:, ERROR], served)
    if preset is Preset.FALLBACK_RATIO:
        return _divided(counts[:, CLOUD], served + counts[:, CLOUD])
    assert preset is not None
    return quantile(counts[:, OK:], QUANTILES[preset])


def _divided(part: Counts, whole: Counts) -> Floats:
    return np.asarray(np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0))


def quantile(buckets: Counts, share: float) -> Floats:
    """Prometheus's `histogram_quantile`: linear within a bucket, the highest bound beyond it, NaN without requests."""
    upto = buckets.cumsum(axis=1)
    total = upto[:, -1]
    rank = share * total
    place = np.argmax(upto >= rank[:, None], axis=1)
    rows = np.arange(len(buckets))
    inside = buckets[rows, place]
    before = upto[rows, place] - inside
    last = place == len(LATENCY_BUCKETS)
    low = EDGES[np.minimum(place, len(LATENCY_BUCKETS) - 1)]
    high = EDGES[np.minimum(place + 1, len(LATENCY_BUCKETS))]
    part = np.divide(rank - before, inside, out=np.zeros(len(buckets)), where=inside > 0)
    found = np.where(last, EDGES[-1], low + (high - low) * part)
    return np.where(total > 0, found, np.nan)
