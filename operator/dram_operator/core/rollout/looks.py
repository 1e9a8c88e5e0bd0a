"""One look at a rollout's metrics: which queries it takes. Nothing is asked here."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_analysis import Metric
from dram_operator.core.rollout.analysis import exposure_seconds, metrics_of, window_seconds
from dram_operator.core.rollout.presets import (
    NO_RELEASE,
    PLACEHOLDER,
    Arm,
    Context,
    Queries,
    QueryInvalid,
    own_queries,
    preset_queries,
)
from dram_operator.core.rollout.recorded import own_recorded_queries, recorded_queries
from dram_operator.core.rollout.recording import RATE_SECONDS
from dram_operator.core.times import parse_time


@dataclass(frozen=True)
class WindowLook:
    """What each device showed in one window that has closed."""

    number: int
    """From the start of the step."""
    ends_at: datetime
    """The time of the queries."""
    queries: tuple[Queries, ...]
    """One, or one an arm where the query names the arm."""


@dataclass(frozen=True)
class MetricLook:
    """What one metric is asked now."""

    name: str
    query: str = ""
    """What status shows: the query, or why there is none."""
    figure: Queries | None = None
    """For limits: one figure of the treated arm."""
    windows: tuple[WindowLook, ...] = ()
    """For the comparison with control: the windows that were not asked for yet."""
    is_askable: bool = True


def metric_looks(rollout: EdgeRollout, at: datetime, known: Mapping[str, Container[int]]) -> tuple[MetricLook, ...]:
    """The queries of a look at `at` at every metric in force, but for the windows that are known by metric; none while no step is at work."""
    if rollout.status.step is None or rollout.status.candidate is None:
        return ()
    return tuple(_look(rollout, metric, at, known.get(metric.name, ())) for metric in metrics_of(rollout.spec.analysis))


def counted_looks(rollout: EdgeRollout, at: datetime) -> tuple[MetricLook, ...]:
    """The same for devices that are only counted: figures for limits from what was recorded, and no device's own."""
    if rollout.status.step is None or rollout.status.candidate is None:
        return ()
    return tuple(_counted_look(rollout, metric, at) for metric in metrics_of(rollout.spec.analysis))


def _counted_look(rollout: EdgeRollout, metric: Metric, at: datetime) -> MetricLook:
    if metric.max is None and metric.min is None:
        return MetricLook(metric.name, "not asked: devices are only counted")
    try:
        if metric.preset is not None:
            window = _window_of_attempt(rollout, at, reaches_back=RATE_SECONDS)
            figure = recorded_queries(metric.preset, _context(rollout, window, at))
        else:
            assert metric.query is not None
            figure = own_recorded_queries(metric.query, _context(rollout, _window_of_attempt(rollout, at), at))
    except QueryInvalid as error:
        return MetricLook(metric.name, f"not asked: {error}", is_askable=False)
    return MetricLook(metric.name, figure.value, figure)


def _look(rollout: EdgeRollout, metric: Metric, at: datetime, known: Container[int]) -> MetricLook:
    analysis = rollout.spec.analysis
    shown, figure = "", None
    windows: tuple[WindowLook, ...] = ()
    try:
        if metric.max is not None or metric.min is not None:
            figure = _queries(metric, _context(rollout, _window_of_attempt(rollout, at), at), each_device=False)
            shown = figure.value
        if metric.compare_to:
            windows = tuple(_window(rollout, metric, number) for number in _closed(rollout, at) if number not in known)
            shown = shown or _queries(metric, _context(rollout, exposure_seconds(analysis), at), each_device=True).value
    except QueryInvalid as error:
        return MetricLook(metric.name, f"not asked: {error}", is_askable=False)
    return MetricLook(metric.name, shown, figure, windows)


def _closed(rollout: EdgeRollout, at: datetime) -> range:
    """The windows that closed an interval ago: samples may come late, and a window is asked for once."""
    assert rollout.status.step is not None
    ago = (at - parse_time(rollout.status.step.started_at)).total_seconds() - rollout.spec.analysis.interval_seconds
    return range(max(0, int(ago // exposure_seconds(rollout.spec.analysis))))


def _window(rollout: EdgeRollout, metric: Metric, number: int) -> WindowLook:
    assert rollout.status.step is not None
    length = exposure_seconds(rollout.spec.analysis)
    ends_at = parse_time(rollout.status.step.started_at) + timedelta(seconds=(number + 1) * length)
    names_arm = metric.query is not None and any(found[1] == "arm" for found in PLACEHOLDER.finditer(metric.query))
    arms = (Arm.TREATED, Arm.CONTROL) if names_arm else (Arm.TREATED,)
    contexts = (_context(rollout, length, ends_at, arm) for arm in arms)
    return WindowLook(number, ends_at, tuple(_queries(metric, one, each_device=True) for one in contexts))


def _queries(metric: Metric, context: Context, *, each_device: bool) -> Queries:
    if metric.preset is not None:
        return preset_queries(metric.preset, context, each_device=each_device)
    assert metric.query is not None
    return own_queries(metric.query, context)


def _context(rollout: EdgeRollout, window: int, at: datetime, arm: Arm = Arm.TREATED) -> Context:
    status = rollout.status
    assert status.step is not None
    assert status.candidate is not None
    stable = status.stable.release.digest if status.stable else NO_RELEASE
    return Context(
        rollout.channel,
        status.attempt,
        window,
        status.candidate.release.digest,
        stable,
        arm,
        _seconds_since(status.step.started_at, at),
    )


def _window_of_attempt(rollout: EdgeRollout, at: datetime, *, reaches_back: int = 0) -> int:
    """Seconds that a figure speaks of: it does not reach back into an earlier attempt, which may have been of the same release.

    What is asked for may itself be about so many seconds before.
    """
    assert rollout.status.candidate is not None
    age = _seconds_since(rollout.status.candidate.since, at) - reaches_back
    return max(1, min(window_seconds(rollout.spec.analysis), age))


def _seconds_since(moment: str, at: datetime) -> int:
    return max(0, int((at - parse_time(moment)).total_seconds()))
