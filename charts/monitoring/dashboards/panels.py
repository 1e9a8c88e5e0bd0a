"""Kinds of panel. Each says what it shows, and takes PromQL in which `$namespace` and the like stand for what was chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import bargauge, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders.common import (
    LineStyle,
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import DashboardLink, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery as Target
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from charts.monitoring.dashboards.frame import SOURCE

OBJECT = 'namespace=~"$namespace", name=~"$name"'
"""The objects that were chosen."""
GOOD, BUSY, WAITING, BAD, IDLE = "green", "blue", "yellow", "red", "text"
Words = Mapping[str, str]
"""Colours of words, in the order of their numbers."""


@dataclass(frozen=True)
class Query:
    """PromQL, and how its series are called."""

    expr: str
    legend: str = ""


def graph(
    title: str, meaning: str, *queries: Query, unit: str = "short", width: int = 12, stacked: bool = False
) -> timeseries.Panel:
    """Lines over time."""
    made = timeseries.Panel().title(title).description(meaning).datasource(SOURCE).unit(unit).span(width).height(8)
    made = made.targets(_targets(queries)).fill_opacity(30 if stacked else 8).min(0)
    made = made.legend(VizLegendOptions().display_mode(common.LegendDisplayMode.LIST).show_legend(show_legend=True))
    made = made.tooltip(VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
    return made.stacking(StackingConfig().mode(common.StackingMode.NORMAL)) if stacked else made


def against_limits(title: str, meaning: str, value: Query, limits: Query, *, repeat: str) -> timeseries.Panel:
    """A figure and its limits, once for every value of a variable."""
    dashed = LineStyle().fill("dash").dash([8, 6]).build()
    made = graph(title, meaning, value, limits, width=24).repeat(repeat).repeat_direction("h")
    return made.override_by_query(
        "B",
        [
            dashboard.DynamicConfigValue("custom.lineStyle", dashed),
            dashboard.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": BAD}),
            dashboard.DynamicConfigValue("custom.fillOpacity", 0),
        ],
    )


def figure(
    title: str, meaning: str, query: str, *, unit: str = "short", width: int = 4, bad_from: float | None = None
) -> stat.Panel:
    """One number, red from a limit on."""
    made = stat.Panel().title(title).description(meaning).datasource(SOURCE).unit(unit).span(width).height(4)
    made = made.targets(_targets([Query(query)])).graph_mode(common.BigValueGraphMode.AREA)
    steps = [dashboard.Threshold(None, IDLE)]
    steps += [dashboard.Threshold(bad_from, BAD)] if bad_from is not None else []
    return made.thresholds(ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps))


def bars(title: str, meaning: str, query: Query, *, unit: str, width: int = 12) -> bargauge.Panel:
    """A bar for every series, as it is now."""
    made = bargauge.Panel().title(title).description(meaning).datasource(SOURCE).unit(unit).span(width).height(8)
    made = made.with_target(_target(query, "A").instant()).orientation(common.VizOrientation.HORIZONTAL).min(0)
    return made.reduce_options(ReduceDataOptions().calcs(["lastNotNull"])).display_mode(
        common.BarGaugeDisplayMode.BASIC
    )


def timeline(title: str, meaning: str, query: Query, words: Words, *, width: int = 24) -> statetimeline.Panel:
    """Words over time; `query` returns their numbers, see `numbered`."""
    results = {
        str(number): dashboard.ValueMappingResult(text=word, color=color, index=number)
        for number, (word, color) in enumerate(words.items())
    }
    made = statetimeline.Panel().title(title).description(meaning).datasource(SOURCE).span(width).height(7)
    made = made.targets(_targets([query])).mappings([dashboard.ValueMap(results)]).merge_values(merge_values=True)
    return made.legend(VizLegendOptions().show_legend(show_legend=False)).row_height(0.8).fill_opacity(70)


def numbered(metric: str, label: str, words: Words, by: str, matchers: str = OBJECT) -> str:
    """The number of the word whose series is 1: a timeline wants one series that changes."""
    parts = (
        f'{number} * max by ({by}) ({metric}{{{matchers}, {label}="{word}"}})' for number, word in enumerate(words)
    )
    return " + ".join(parts)


def table(
    title: str, meaning: str, columns: Mapping[str, str], *, units: Words | None = None, width: int = 12
) -> tables.Panel:
    """A row for every set of labels, with a column for every query; an empty name hides the value."""
    made = tables.Panel().title(title).description(meaning).datasource(SOURCE).span(width).height(8)
    names: dict[str, str] = {}
    hidden = {"Time": True}
    for letter, (name, query) in zip("ABCDEF", columns.items(), strict=False):
        target = _target(Query(query), letter).instant().format(PromQueryFormat.TABLE)
        made = made.with_target(target)
        field = f"Value #{letter}" if len(columns) > 1 else "Value"
        if name:
            names[field] = name
        else:
            hidden[field] = True
    organised = {"excludeByName": hidden, "renameByName": names, "indexByName": {}}
    made = made.with_transformation(dashboard.DataTransformerConfig("merge", options={}))
    made = made.with_transformation(dashboard.DataTransformerConfig("organize", options=organised))
    for name, unit in (units or {}).items():
        made = made.override_by_name(name, [dashboard.DynamicConfigValue("unit", unit)])
    return made


def coloured(panel: tables.Panel, column: str, words: Words) -> tables.Panel:
    """Give words in a column their colours."""
    results = {word: dashboard.ValueMappingResult(text=None, color=color) for word, color in words.items()}
    return panel.override_by_name(
        column,
        [
            dashboard.DynamicConfigValue("mappings", [dashboard.ValueMap(results)]),
            dashboard.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
        ],
    )


def linked(panel: tables.Panel, column: str, title: str, url: str) -> tables.Panel:
    """Let a column lead to another dashboard."""
    link = DashboardLink(title).url(url).build()
    return panel.override_by_name(column, [dashboard.DynamicConfigValue("links", [link])])


def _targets(queries: Sequence[Query]) -> list[Builder[Target]]:
    return [_target(query, letter) for query, letter in zip(queries, "ABCDEF", strict=False)]


def _target(query: Query, letter: str) -> Dataquery:
    made = Dataquery().expr(query.expr).ref_id(letter).datasource(SOURCE).range()
    return made.legend_format(query.legend) if query.legend else made
