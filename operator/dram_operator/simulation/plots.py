"""The plots of a simulation: how far it came, what became of the devices, and every metric against its limit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dram_operator.simulation.devices import STATES
from dram_operator.simulation.timeline import Look, Sample, Timeline
from dram_workers.publish.drawing import BAD, GOOD, INK, SERIES, SOFT, WARN, WIDE, new_figure, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 1500
"""Points of a curve: more would not be seen and make the file large."""
COLORS = dict(zip(STATES, (SOFT, SERIES[3], BAD, WARN, SERIES[0], SERIES[2]), strict=True))
MARKS = {"Pass": GOOD, "Breach": BAD, "Inconclusive": WARN, "Error": SERIES[3], "Missing": SOFT}
WAYS_BACK = ("RollingBack", "RolledBack", "RollbackBlocked")
"""Lines across the plots; the first has its name beside it."""
HOURS_FROM, DAYS_FROM = 2 * 3600, 3 * 86_400
"""From these spans on the axis is in hours, and in days."""


@dataclass(frozen=True)
class Scale:
    """The axis of time."""

    name: str
    seconds: float

    def of(self, samples: Sequence[Sample]) -> list[float]:
        """The times of samples."""
        return [one.seconds / self.seconds for one in samples]


def scale_for(seconds: int) -> Scale:
    """Minutes, hours or days, as suits the span."""
    if seconds < HOURS_FROM:
        return Scale("minutes", 60.0)
    return Scale("hours", 3600.0) if seconds < DAYS_FROM else Scale("days", 86_400.0)


def course_plot(timeline: Timeline) -> str:
    """Share of the devices that is meant to run the candidate, with the start of every step."""
    samples, scale = thinned(timeline.samples), scale_for(timeline.samples[-1].seconds)
    figure, axes = new_figure(WIDE)
    axes.step(scale.of(samples), [one.percent for one in samples], where="post", color=SERIES[0], linewidth=2)
    for before, after in _neighbours(timeline.samples):
        if after.step > before.step:
            axes.annotate(
                f"step {after.step}", (after.seconds / scale.seconds, after.percent),
                xytext=(3, 3), textcoords="offset points", color=INK, fontsize=9,
            )  # fmt: skip
    axes.set_ylim(0, 110)
    axes.set_ylabel("% meant to run the candidate")
    _annotate(axes, timeline, scale)
    return svg(figure, "Share of the devices that is meant to run the candidate")


def devices_plot(timeline: Timeline) -> str:
    """Devices by what they truly are."""
    samples, scale = thinned(timeline.samples), scale_for(timeline.samples[-1].seconds)
    figure, axes = new_figure(WIDE)
    shown = [state for state in reversed(STATES) if any(one.devices[state] for one in samples)]
    axes.stackplot(
        scale.of(samples),
        [[one.devices[state] for one in samples] for state in shown],
        labels=shown,
        colors=[COLORS[state] for state in shown],
        alpha=0.75,
        step="post",
        linewidth=0,
    )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("devices")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=6, borderaxespad=0.3)
    _annotate(axes, timeline, scale)
    return svg(figure, "Devices by state")


def metric_plot(timeline: Timeline, name: str) -> str:
    """What a metric showed, against its limit; each look marked with its verdict."""
    samples, scale = [one for one in timeline.samples if name in one.looks], scale_for(timeline.samples[-1].seconds)
    figure, axes = new_figure(WIDE)
    measured = thinned([one for one in samples if one.looks[name].value is not None])
    axes.plot(scale.of(measured), [one.looks[name].value or 0.0 for one in measured], color=SERIES[0], linewidth=1)
    for verdict, color in MARKS.items():
        marked = thinned([one for one in samples if one.looks[name].verdict == verdict])
        if marked:
            places = [_height(one.looks[name], samples, name) for one in marked]
            axes.scatter(scale.of(marked), places, color=color, s=12, label=verdict, zorder=3)
    limit = next((one.looks[name].limit for one in samples if one.looks[name].limit is not None), None)
    if limit is not None:
        axes.axhline(limit, color=BAD, linestyle=(0, (4, 3)), linewidth=1, label="limit")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=6, borderaxespad=0.3)
    _annotate(axes, timeline, scale)
    return svg(figure, f"{name} against its limit")


def metrics(timeline: Timeline) -> list[str]:
    """The metrics that were looked at, in their order."""
    return list(dict.fromkeys(name for one in timeline.samples for name in one.looks))


def thinned(samples: Sequence[Sample]) -> list[Sample]:
    """Evenly spaced samples, the last one always."""
    every = max(1, -(-len(samples) // MOST_POINTS))
    return [*samples[:-1:every], samples[-1]] if samples else []


def _height(look: Look, samples: Sequence[Sample], name: str) -> float:
    """Where the mark of a look stands; one without a figure stands at the bottom."""
    if look.value is not None:
        return look.value
    return min((one.looks[name].value or 0.0 for one in samples if one.looks[name].value is not None), default=0.0)


def _annotate(axes: "Axes", timeline: Timeline, scale: Scale) -> None:
    """The axis of time, with rollbacks as lines across."""
    axes.set_xlabel(f"{scale.name} since the start")
    axes.set_xlim(0, max(timeline.samples[-1].seconds / scale.seconds, 1e-6))
    for line in timeline.lines:
        if line.reason in WAYS_BACK:
            axes.axvline(line.seconds / scale.seconds, color=BAD, linewidth=1)
        if line.reason == WAYS_BACK[0]:
            axes.annotate(
                line.reason, (line.seconds / scale.seconds, 0.98), xycoords=("data", "axes fraction"), rotation=90,
                xytext=(-3, 0), textcoords="offset points", ha="right", va="top", color=BAD, fontsize=8,
            )  # fmt: skip


def _neighbours(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Sample]]:
    return zip([Sample(0, 0, 0, {}, {}), *samples], samples, strict=False)
