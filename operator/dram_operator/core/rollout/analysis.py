"""The metrics of a step: from what was measured to what status says, and what the rollout is told."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dram_operator.api.quantity import quantity
from dram_operator.api.rollout_analysis import Analysis, Metric, Preset
from dram_operator.api.rollout_status import MetricStatus
from dram_operator.core.rollout.cohort import Arms
from dram_operator.core.rollout.course import Course
from dram_operator.core.rollout.exposure import Windows
from dram_operator.core.rollout.observed import Measured
from dram_operator.core.rollout.power import smallest_effect
from dram_operator.core.rollout.presets import RECIPES
from dram_operator.core.rollout.sequential import (
    Matching,
    Question,
    decided,
    group_sizes,
    share,
)
from dram_operator.core.rollout.telling import Seen, bounds_of, limits_of, remembered, tally_of, told
from dram_operator.core.rollout.verdicts import (
    Look,
    Outcome,
    Ruling,
    Verdict,
    judge_bounds,
    judge_comparison,
    rule,
)
from dram_operator.core.times import parse_time, stamp

DEFAULT_FALLBACK = Metric(name="fallback-ratio", preset=Preset.FALLBACK_RATIO, max="200m")
"""A gate also where nobody asked for it: the cloud must not hide a device that does not serve."""
EXPOSURE_INTERVALS = 5
"""How long a device is looked at before it gives its value to a comparison."""
WINDOW_INTERVALS = 2
SHORTEST_WINDOW_SECONDS = 60
"""A rate needs at least two scrapes."""
MARGINS_SEEN = 2
"""A comparison should see a difference of so many margins."""


@dataclass(frozen=True)
class Judged:
    """What the metrics say together."""

    metrics: tuple[MetricStatus, ...]
    rollback: tuple[str, str] | None = None
    """The first metric that wants the candidate withdrawn, and why."""
    pause: tuple[MetricStatus, str] | None = None
    """The first metric that wants people to look, and why."""
    waiting: str = ""
    """The first metric that has not passed; empty when all have."""
    too_small: tuple[str, ...] | None = None
    """What comparisons cannot see although they should; None when none of them was looked at."""


def metrics_of(analysis: Analysis) -> tuple[Metric, ...]:
    """The metrics in force, with the fallback ratio that is always one."""
    known = any(metric.preset is Preset.FALLBACK_RATIO for metric in analysis.metrics)
    taken = any(metric.name == DEFAULT_FALLBACK.name for metric in analysis.metrics)
    return analysis.metrics if known or taken else (*analysis.metrics, DEFAULT_FALLBACK)


def window_seconds(analysis: Analysis) -> int:
    """The time that one look at a metric with limits speaks of."""
    return max(SHORTEST_WINDOW_SECONDS, WINDOW_INTERVALS * analysis.interval_seconds)


def exposure_seconds(analysis: Analysis) -> int:
    """The length of the windows of a comparison; the first one starts with the step."""
    return EXPOSURE_INTERVALS * analysis.interval_seconds


def judge(course: Course, *, bake_is_over: bool) -> Judged:
    """Take in what was measured since the last look, and rule on every metric."""
    known = {metric.name: metric for metric in course.status.analysis}
    arms = course.arms()
    found, rulings = list[MetricStatus](), list[tuple[MetricStatus, Ruling]]()
    too_small: list[str] | None = None
    for metric in metrics_of(course.spec.analysis):
        old = remembered(known.get(metric.name), metric)
        measured = _newest(course, metric, old)
        status = old
        if measured:
            seen = _look(course, metric, measured, arms)
            can_say = bake_is_over and (metric.compare_to is None or _windows_have_closed(course))
            status = told(course, metric, old, measured, seen, bake_is_over=can_say)
            if metric.compare_to:
                too_small = [*(too_small or ()), *([seen.too_small] if seen.too_small else ())]
        if status:
            found.append(status)
        if not metric.dry_run:
            rulings.append(_ruling(course, metric, status))
    return _together(found, rulings, too_small)


def _together(
    found: list[MetricStatus], rulings: list[tuple[MetricStatus, Ruling]], too_small: list[str] | None
) -> Judged:
    def first(verdict: Verdict) -> tuple[MetricStatus, Ruling] | None:
        return next((one for one in rulings if one[1].verdict is verdict), None)

    back, pause = first(Verdict.ROLL_BACK), first(Verdict.PAUSE)
    waiting = first(Verdict.WAIT) or pause or back
    return Judged(
        tuple(found),
        (back[0].name, f"{back[0].name}: {back[0].message or back[1].message} ({back[1].message})") if back else None,
        (pause[0], f"{pause[0].name}: {pause[1].message}") if pause else None,
        f"{waiting[0].name}: {waiting[0].message or 'not measured yet'}" if waiting else "",
        None if too_small is None else tuple(too_small),
    )


def _newest(course: Course, metric: Metric, old: MetricStatus | None) -> Measured | None:
    """The latest look that is not in status yet and belongs to this step; looks are taken in once, in any order."""
    after = old.looked_at if old else ""
    looks = (
        one
        for one in course.observed.measured
        if one.name == metric.name and stamp(one.at) > after and stamp(one.at) >= course.step.started_at
    )
    return max((one for one in looks if one.at <= course.now), key=lambda one: one.at, default=None)


def _ruling(course: Course, metric: Metric, status: MetricStatus | None) -> tuple[MetricStatus, Ruling]:
    if status is None:
        blank = MetricStatus(name=metric.name, verdict="Missing", looked_at=course.stamp)
        return blank, Ruling(Verdict.WAIT)
    ruling = rule(tally_of(status), Outcome(status.verdict), limits_of(metric))
    if ruling.verdict is Verdict.GO and not course.is_fresh(parse_time(status.looked_at)):
        return status, Ruling(Verdict.WAIT)
    return status, ruling


def _look(course: Course, metric: Metric, measured: Measured, arms: Arms) -> Seen:
    bounds = bounds_of(metric, course.spec.analysis)
    has_bounds = metric.max is not None or metric.min is not None
    by_bounds = judge_bounds(measured.answer, bounds, measured.at)
    if metric.compare_to is None:
        return Seen(by_bounds)
    question = _question(course, metric)
    if question is None:
        alone = Look(Outcome.PASS, message="no device stays on stable to compare with")
        return Seen(by_bounds if has_bounds else alone)
    seen = _compared(course, metric, question, measured, arms)
    return replace(seen, look=_stricter(seen.look, by_bounds)) if has_bounds else seen


def _compared(course: Course, metric: Metric, question: Question, measured: Measured, arms: Arms) -> Seen:
    if course.inventory.groups:
        message = "devices that are only counted cannot be compared one by one: set max or min"
        return Seen(Look(Outcome.INCONCLUSIVE, message=message), too_small=f"{metric.name}: {message}")
    windows = Windows(course, arms, exposure_seconds(course.spec.analysis))
    trouble = windows.take_in(measured, matching := Matching(question))
    comparison = decided(matching, question)
    devices = comparison.pairs * sum(group_sizes(question.treated_share))
    too_small = _too_small(course, metric, question, windows.control_values)
    return Seen(judge_comparison(comparison, trouble), comparison, devices, too_small)


def _stricter(one: Look, other: Look) -> Look:
    """Both limits and control have a say: the worse of two looks."""
    order = (Outcome.BREACH, Outcome.ERROR, Outcome.MISSING, Outcome.INCONCLUSIVE, Outcome.PASS)
    worse = min(one, other, key=lambda look: order.index(look.outcome))
    return replace(worse, support=other.support)


def _windows_have_closed(course: Course) -> bool:
    """Whether a whole window lies within the bake, and was asked for: its first one may have started before."""
    begun = course.step.bake_started_at
    late = course.spec.analysis.interval_seconds
    return begun is not None and course.since(begun) > 2 * exposure_seconds(course.spec.analysis) + late


def _question(course: Course, metric: Metric) -> Question | None:
    """What is asked of a comparison; None when nobody was left as control when the step started."""
    treated, control = course.step.treated, course.step.control
    if not treated or not control:
        return None
    compared = sum(one.compare_to is not None and not one.dry_run for one in metrics_of(course.spec.analysis))
    steps = len(course.spec.strategy.steps)
    return Question(
        alpha=share(float(course.spec.analysis.alpha), max(1, compared), steps),
        treated_share=treated / (treated + control),
        margin=quantity(metric.margin) if metric.margin else 0.0,
        lower_is_worse=_lower_is_worse(metric),
    )


def _lower_is_worse(metric: Metric) -> bool:
    if metric.preset is not None:
        return RECIPES[metric.preset].lower_is_worse
    return metric.min is not None and metric.max is None


def _too_small(course: Course, metric: Metric, question: Question, values: Mapping[int, float]) -> str:
    """What the step cannot see although the metric asks for it; empty when it sees it, or nothing is known yet.

    A harm of twice the margin is as far from the margin as no harm at all: a step that does not see the one cannot clear the other either.
    """
    if course.step.control and not values and not course.step.bake_started_at:
        return ""
    by_hash = [values[device] for device in sorted(values)]
    seen = smallest_effect(by_hash, question, course.step.treated)
    if seen is None:
        return f"{metric.name}: no difference is sure to be seen with {course.step.treated} and {course.step.control} devices"
    if seen > MARGINS_SEEN * question.margin:
        return f"{metric.name}: with a margin of {question.margin:.4g}, differences are seen from {seen:.4g} on"
    return ""
