"""The report's plots."""

from collections.abc import Sequence
from dataclasses import dataclass

from dram_workers.publish.drawing import HALF, INK, SERIES, SOFT, WIDE, dress, new_figure, svg
from dram_workers.publish.evidence import Row
from dram_workers.results import Measure

MOST_POINTS = 1500
"""Points of a curve: more would not be seen and make the file large."""
PANELS = 4
"""Schedules side by side."""
VALIDATION = "validation"
"""How figures of the train log begin that not every step has."""
ACCOUNTING = frozenset({"step", "tokens", "samples", "targets", "drawn", "skipped"})
"""Figures of the train log that make no curve."""
SCHEDULES = frozenset({"alpha", "temperature", "learningRate", "gradNorm", "lossScale"})
"""Figures with a scale of their own, as is every `…Weight`; all others are losses."""
NAMES = {
    "soft": "soft targets (T² × divergence)",
    "hard": "hard labels (cross-entropy)",
    "hidden": "hidden states",
    "attention": "attention maps",
    "hiddenWeight": "weight of hidden states",
    "attentionWeight": "weight of attention maps",
    "learningRate": "learning rate",
    "gradNorm": "gradient norm",
    "lossScale": "loss scale",
    "validationLoss": "validation loss",
    "validationKL": "validation KL",
    "validationCE": "validation cross-entropy",
}
"""Figures of the train log in words, where their names are none."""


@dataclass(frozen=True)
class Subject:
    """A model on the plot of score against size."""

    name: str
    size_mib: float
    score: Measure


def loss_plot(log: Sequence[Row]) -> str:
    """The loss, its terms and the validations over the steps: every figure of the log that is no schedule."""
    figure, axes = new_figure(WIDE)
    terms = _terms(log)
    for number, key in enumerate(terms):
        rows = _thinned([row for row in log if key in row])
        axes.plot(
            [row["step"] for row in rows],
            [row[key] for row in rows],
            color=SERIES[number % len(SERIES)],
            label=NAMES.get(key, key),
            linewidth=2.0 if number == 0 else 1.2,
            marker="o" if key.startswith(VALIDATION) else None,
            markersize=4,
        )
    values = [row[key] for row in log for key in terms if key in row and row[key] > 0]
    if values and max(values) > 20 * min(values):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("nats per token")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(4, len(terms)), borderaxespad=0.3)
    return svg(figure, "Loss and its terms over the optimizer steps")


def schedule_plot(log: Sequence[Row]) -> str:
    """Every schedule, the learning rate and the gradient's norm over the steps, each on its own scale."""
    from matplotlib.figure import Figure

    names = _schedules(log)
    high = -(-len(names) // PANELS)
    figure = Figure(figsize=(9.6, 2.1 * high), layout="constrained")
    for number, key in enumerate(names):
        rows = _thinned([row for row in log if key in row])
        axes = figure.add_subplot(high, PANELS, number + 1)
        dress(axes)
        color = SERIES[(number + 3) % len(SERIES)]
        axes.plot([row["step"] for row in rows], [row[key] for row in rows], color=color)
        axes.set_title(NAMES.get(key, key), color=INK, fontsize=10)
        axes.margins(y=0.15)
        axes.set_xlabel("step")
    return svg(figure, "Schedules, learning rate and gradient norm over the optimizer steps")


def _keys(log: Sequence[Row]) -> list[str]:
    """Figures of the log that make a curve, in the order in which they first appear."""
    return [key for key in dict.fromkeys(key for row in log for key in row) if key not in ACCOUNTING]


def _schedules(log: Sequence[Row]) -> list[str]:
    return [key for key in _keys(log) if key in SCHEDULES or key.endswith("Weight")]


def _terms(log: Sequence[Row]) -> list[str]:
    schedules = set(_schedules(log))
    return [key for key in _keys(log) if key not in schedules]


def score_plot(subjects: Sequence[Subject], teacher: Measure | None) -> str:
    """Golden score against size, with bounds; the teacher's score as a line."""
    figure, axes = new_figure(HALF)
    for number, subject in enumerate(subjects):
        score, color = subject.score, SERIES[number % len(SERIES)]
        low, high = (
            score.low if score.low is not None else score.value,
            score.high if score.high is not None else score.value,
        )
        axes.errorbar(
            [subject.size_mib], [score.value], yerr=[[score.value - low], [high - score.value]],
            fmt="o", color=color, capsize=3, markersize=7, elinewidth=1.2,
        )  # fmt: skip
        axes.annotate(
            subject.name,
            (subject.size_mib, score.value),
            xytext=(8, 5),
            textcoords="offset points",
            color=INK,
            fontsize=9,
        )
    if teacher is not None:
        axes.axhline(teacher.value, color=SOFT, linestyle=(0, (4, 3)), linewidth=1)
        axes.annotate(
            "teacher", (1, teacher.value), xycoords=("axes fraction", "data"), xytext=(-4, 3), textcoords="offset points",
            ha="right", color=SOFT, fontsize=9,
        )  # fmt: skip
    axes.set_xlim(left=0, right=1.35 * max(subject.size_mib for subject in subjects))
    axes.margins(y=0.2)
    axes.set_xlabel("size (MiB)")
    axes.set_ylabel("golden score")
    return svg(figure, "Golden score against size, with 95 % bounds")


def bar_plot(title: str, unit: str, figures: Sequence[tuple[str, float]]) -> str:
    """One figure of every variant, as bars with their values."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.7, 0.42 + 0.27 * len(figures)), layout="constrained")
    axes = figure.add_subplot()
    dress(axes)
    names, values = [name for name, _ in figures], [value for _, value in figures]
    bars = axes.barh(names, values, color=[SERIES[n % len(SERIES)] for n in range(len(values))], height=0.62)
    axes.bar_label(bars, labels=[f"{value:.4g} {unit}" for value in values], padding=4, color=INK, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35 * max(values))
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_title(title, color=INK, fontsize=10, loc="left")
    return svg(figure, f"{title} of every variant")


def _thinned(log: Sequence[Row]) -> list[Row]:
    """Evenly spaced rows, the last one always."""
    every = max(1, -(-len(log) // MOST_POINTS))
    rows = list(log[::every])
    return rows if rows[-1] is log[-1] else [*rows, log[-1]]
