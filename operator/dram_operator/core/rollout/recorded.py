"""Presets over what was recorded of devices that are only counted: the same figures as presets.py asks of each device's series.

A recorded rate stands for the EVALUATION_SECONDS up to the next one, so the sum of those in a window is in proportion to what happened in it.
"""

from collections.abc import Mapping

from dram_operator.api.rollout_analysis import Preset
from dram_operator.core.rollout.presets import SERVED, Context, Queries, own_queries
from dram_operator.core.rollout.recording import (
    BUCKETS,
    EVALUATION_SECONDS,
    GOLDEN_COUNT,
    GOLDEN_SUM,
    MEMORY,
    REQUESTS,
)

OF_ARM = 'attempt="{{attempt}}", arm="{{arm}}", release="{{release}}"'


def recorded_queries(preset: Preset, context: Context) -> Queries:
    """The queries of a preset for one figure of the arm."""
    served = "" if preset is Preset.FALLBACK_RATIO else SERVED
    return own_queries(FIGURES[preset], context, samples=_samples(served))


def own_recorded_queries(query: str, context: Context) -> Queries:
    """The queries of a user's metric: their own, with recorded requests as samples; raises QueryInvalid."""
    return own_queries(query, context, samples=_samples(SERVED))


def _over_window(series: str, *matchers: str) -> str:
    return f"sum_over_time({series}{{{', '.join(filter(None, (*matchers, OF_ARM)))}}}[{{{{window}}}}])"


def _samples(served: str) -> str:
    return f"sum({_over_window(REQUESTS, served)}) * {EVALUATION_SECONDS}"


def _latency(quantile: float) -> str:
    return f"histogram_quantile({quantile}, sum by (le) ({_over_window(BUCKETS, SERVED)}))"


def _ratio(part: str, whole: str) -> str:
    return f"sum({_over_window(REQUESTS, part)}) / sum({_over_window(REQUESTS, whole)})"


FIGURES: Mapping[Preset, str] = {
    Preset.LATENCY_P50: _latency(0.5),
    Preset.LATENCY_P95: _latency(0.95),
    Preset.LATENCY_P99: _latency(0.99),
    Preset.ERROR_RATIO: _ratio('served_by="device", outcome="error"', SERVED),
    Preset.FALLBACK_RATIO: _ratio('served_by="cloud"', ""),
    Preset.GOLDEN_RATIO: f"sum({GOLDEN_SUM}{{{OF_ARM}}}) / sum({GOLDEN_COUNT}{{{OF_ARM}}})",
    Preset.MEMORY_BYTES: f"max({MEMORY}{{{OF_ARM}}})",
}
