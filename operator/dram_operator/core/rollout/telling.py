"""What status says of a metric after a look, and back: its limits and counters."""

from dataclasses import dataclass
from math import isfinite

from dram_operator.api.quantity import quantity
from dram_operator.api.rollout_analysis import Analysis, Metric
from dram_operator.api.rollout_status import MetricStatus, StepState
from dram_operator.core.rollout.course import Course
from dram_operator.core.rollout.observed import Measured
from dram_operator.core.rollout.sequential import Comparison
from dram_operator.core.rollout.verdicts import Bounds, Limits, Look, MissingData, Outcome, Tally, tallied
from dram_operator.core.times import stamp


@dataclass(frozen=True)
class Seen:
    """What one look at one metric showed."""

    look: Look
    comparison: Comparison | None = None
    devices: int = 0
    """Devices behind the comparison."""
    too_small: str = ""
    """What the comparison cannot see although the metric asks for it."""


def told(
    course: Course, metric: Metric, old: MetricStatus | None, measured: Measured, seen: Seen, *, bake_is_over: bool
) -> MetricStatus:
    """The metric's status after the look."""
    limits, look, comparison = limits_of(metric), seen.look, seen.comparison
    is_due = bake_is_over if look.outcome is Outcome.INCONCLUSIVE else course.step.state is not StepState.UPDATING
    tally = tallied(tally_of(old), look.outcome, limits, is_due=is_due)
    support = look.support if look.support is not None and isfinite(look.support) else 0
    return MetricStatus(
        name=metric.name,
        verdict=look.outcome.value,
        message=look.message,
        query=measured.query,
        value=look.value,
        limit=_limit(metric),
        lower=comparison.lower if comparison else None,
        upper=comparison.upper if comparison else None,
        devices=seen.devices,
        samples=min(max(int(support), 0), 1_000_000_000),
        evidence=comparison.evidence if comparison else None,
        looks=tally.looks,
        failed=tally.failed,
        inconclusive=tally.inconclusive,
        errors=tally.errors,
        missing=tally.missing,
        dry_run=metric.dry_run,
        looked_at=stamp(measured.at),
    )


def remembered(status: MetricStatus | None, metric: Metric) -> MetricStatus | None:
    """What is known of a metric, unless an edit made it another one: looks by another limit, or only for show, decide nothing now."""
    if status is None or (status.limit, status.dry_run) != (_limit(metric), metric.dry_run):
        return None
    return status


def _limit(metric: Metric) -> float | None:
    text = metric.margin or metric.max or metric.min
    return quantity(text) if text else None


def bounds_of(metric: Metric, analysis: Analysis) -> Bounds:
    """Its limits without control."""
    return Bounds(
        highest=quantity(metric.max) if metric.max is not None else None,
        lowest=quantity(metric.min) if metric.min is not None else None,
        min_samples=metric.min_samples,
        interval_seconds=analysis.interval_seconds,
    )


def limits_of(metric: Metric) -> Limits:
    """How much it bears."""
    return Limits(
        failure_limit=min(metric.failure_limit, metric.looks),
        looks=metric.looks,
        inconclusive_limit=metric.inconclusive_limit,
        error_limit=metric.error_limit,
        missing_data=MissingData(metric.missing_data),
    )


def tally_of(status: MetricStatus | None) -> Tally:
    """What is remembered of its looks."""
    if status is None:
        return Tally()
    return Tally(status.looks, status.inconclusive, status.errors, status.missing)
