"""Plots for pages: matplotlib's SVG with the page's own colours and fonts in it, so that it fits a light and a dark page.

Matplotlib knows no CSS, so each colour is drawn as a stand-in that the finished SVG's text maps to a CSS variable.
"""

import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#010101", "#020202", "#030303"
SERIES = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05", "#0a0a06")
GOOD, WARN, BAD = "#0b0b01", "#0b0b02", "#0b0b03"
STAND_INS = {
    INK: "var(--ink)", SOFT: "var(--soft)", GRID: "var(--line)", GOOD: "var(--good)", WARN: "var(--warn)", BAD: "var(--bad)",
} | {color: f"var(--series-{number})" for number, color in enumerate(SERIES, start=1)}  # fmt: skip
WIDE, HALF = (9.6, 3.2), (4.7, 3.1)
"""Inches: as wide as the page, and half of it."""


def new_figure(size: tuple[float, float]) -> "tuple[Figure, Axes]":
    """A figure with one plot in it, of so many inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    dress(axes)
    return figure, axes


def dress(axes: "Axes") -> None:
    """Give axes the page's look: two spines, a fine grid, soft ticks."""
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, labelsize=9)
    axes.xaxis.label.set_color(SOFT)
    axes.yaxis.label.set_color(SOFT)


def svg(figure: "Figure", title: str) -> str:
    """The figure as an `svg` element for a page: real text, no metadata, the same bytes every time."""
    from matplotlib import rc_context

    for axes in figure.axes:
        if legend := axes.get_legend():
            legend.set_frame_on(False)
            for text in legend.get_texts():
                text.set_color(INK)
                text.set_fontsize(9)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    for stand_in, color in STAND_INS.items():
        drawn = drawn.replace(stand_in, color)
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"<style.*?</style>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", drawn)
    drawn = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--sans)", drawn)
    # ids are unique in a page only if each plot brings its own
    mark = re.sub(r"\W+", "-", title.lower())
    drawn = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{mark}-", drawn)
    drawn = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", drawn, count=1)
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
