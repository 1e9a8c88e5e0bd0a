"""What all dashboards share: data source, variables, links to each other, rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

TAG = "dram"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

Panels = Sequence[Builder[models.Panel]]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard."""

    name: str
    values: str
    """The query for them."""
    part: str = ""
    """Regular expression whose group is the value, where it is not all of what the query returns."""
    hidden: bool = False

    def build(self) -> QueryVariable:
        """As Grafana has it: several values, and all of them at first."""
        everything = models.VariableOption(selected=True, text="All", value="$__all")
        made = QueryVariable(self.name).query(self.values).datasource(SOURCE).regex(self.part).current(everything)
        made = made.multi(multi=True).include_all(include_all=True).all_value(".+")
        made = made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
        return made.hide(models.VariableHide.HIDE_VARIABLE) if self.hidden else made


@dataclass(frozen=True)
class Mark(Builder[models.AnnotationQuery]):
    """A mark over every graph for as long as a query returns something above 0."""

    name: str
    query: str
    title: str
    text: str
    color: str

    def build(self) -> models.AnnotationQuery:
        return _Marked(self)


class _Marked(models.AnnotationQuery):
    """The library's class knows no texts."""

    def __init__(self, mark: Mark) -> None:
        super().__init__(name=mark.name, datasource=SOURCE, icon_color=mark.color, expr=mark.query)
        self._texts = {"titleFormat": mark.title, "textFormat": mark.text, "tagKeys": "namespace,name", "step": "60s"}

    def to_json(self) -> dict[str, object]:
        return super().to_json() | self._texts


@dataclass(frozen=True)
class Board:
    """A dashboard."""

    uid: str
    title: str
    meaning: str
    rows: Sequence[tuple[str, Panels]]
    """Titles and panels; a panel that is repeated stands in a row of its own."""
    variables: Sequence[Variable] = ()
    marks: Sequence[Mark] = ()

    def build(self) -> models.Dashboard:
        """As Grafana has it."""
        made = Dashboard(self.title).uid(self.uid).description(self.meaning).tags([TAG]).readonly()
        made = made.time("now-6h", "now").refresh("30s").tooltip(models.DashboardCursorSync.CROSSHAIR)
        made = made.timezone("browser").link(_others())
        made = made.with_variable(DatasourceVariable("datasource").type("prometheus").label("Data source"))
        for variable in self.variables:
            made = made.with_variable(variable.build())
        for mark in self.marks:
            made = made.annotation(mark)
        for title, panels in self.rows:
            made = made.with_row(Row(title))
            for panel in panels:
                made = made.with_panel(panel)
        return _numbered(made.build())


def _others() -> DashboardLink:
    """Links to the other dashboards, with the same time and choice."""
    made = DashboardLink("Dram").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
    return made.as_dropdown(as_dropdown=False).keep_time(keep_time=True).include_vars(include_vars=True)


def _numbered(board: models.Dashboard) -> models.Dashboard:
    """Ids by place: Grafana would make its own, and links to a panel would break with each import."""
    for number, panel in enumerate(board.panels or (), 1):
        panel.id_val = number
    return board
