"""Dashboards ask only for what the code exports, and every panel shows something of an installation at work."""

import math
import re
from typing import Any

import pytest

from charts.monitoring import catalogue
from charts.monitoring.dashboards import files
from dram_operator.runtime.rollouts.metrics import STATES, VERDICTS
from tests.monitoring.boards import BOARDS, FOLDER, LABEL_VALUES, Asked, filled, panels, queries, variables
from tests.monitoring.conftest import Asked as Prometheus
from tests.monitoring.promql import Checker, NotExported

CHECKER = Checker(catalogue.series())
QUERIES, VARIABLES = list(queries()), dict(variables())


def test_the_chart_has_the_dashboards_that_the_code_makes() -> None:
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == files(), "run `make dashboards`"


@pytest.mark.parametrize("asked", QUERIES, ids=lambda asked: asked.where)
def test_a_query_names_only_what_is_exported(asked: Asked) -> None:
    labels = CHECKER.labels(filled(asked.expr))
    assert set(re.findall(r"\{\{(\w+)\}\}", asked.legend)) <= labels


@pytest.mark.parametrize("choice", ["everything", "one"])
@pytest.mark.parametrize("asked", QUERIES, ids=lambda asked: asked.where)
def test_a_query_returns_data(prometheus: Prometheus, asked: Asked, choice: str) -> None:
    if asked.where.startswith("dram-rollouts/mark") and choice == "one":
        # The rollout that was chosen is not the one that goes back.
        assert prometheus.values(filled(asked.expr, choice)) == []
        return
    values = prometheus.values(filled(asked.expr, choice))
    assert values
    assert all(map(math.isfinite, values))


@pytest.mark.parametrize("where", VARIABLES)
def test_a_variable_offers_what_there_is(prometheus: Prometheus, where: str) -> None:
    variable = VARIABLES[where]
    found = LABEL_VALUES.fullmatch(variable["query"])
    assert found
    selector, label = filled(found[1]), found[2]
    assert label in CHECKER.labels(selector)
    values = prometheus.get(f"label/{label}/values", **{"match[]": selector})
    part = re.compile(variable["regex"].strip("/").replace("\\/", "/") or "(.+)")
    offered = {match[1] for match in map(part.fullmatch, values) if match}
    want = {"namespace": {"tv", "ns"}, "name": {"bot"}, "metric": {"error-rate"}}[variable["name"]]
    assert offered & want


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_panels_say_what_they_show_and_do_not_overlap(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert all(panel["description"] for panel in panels(board))
    assert {panel["datasource"]["uid"] for panel in panels(board)} == {"${datasource}"}


def test_dashboards_lead_to_each_other() -> None:
    for board in BOARDS.values():
        [link] = board["links"]
        assert (link["type"], link["tags"], link["keepTime"], link["includeVars"]) == (
            "dashboards",
            ["dram"],
            True,
            True,
        )
        assert board["tags"] == ["dram"]
    text = "".join(files().values())
    assert set(re.findall(r"/d/([\w-]+)", text)) == {"dram-fleet"} <= set(BOARDS)


@pytest.mark.parametrize(("title", "words"), [("State", STATES), ("Verdicts", VERDICTS)])
def test_a_timeline_has_a_word_for_every_number(title: str, words: tuple[str, ...]) -> None:
    [panel] = [panel for panel in panels(BOARDS["dram-rollouts"]) if panel["title"] == title]
    [mapping] = panel["fieldConfig"]["defaults"]["mappings"]
    assert [mapping["options"][str(number)]["text"] for number in range(len(words))] == list(words)


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("dram_job_progress", "no code exports 'dram_job_progress'"),
        ('dram_job_gate{stage="train"}', "dram_job_gate has no"),
        ("sum by (device) (dram_job_gate)", "sum has no"),
        ("histogram_quantile(0.9, sum by (kind) (rate(dram_operator_reconcile_seconds_bucket[1m])))", "has no"),
        ("sum by (kind) (dram_operator_queue_depth) / sum by (job) (dram_operator_leader)", "never match"),
        ("dram_job_gate * on (namespace, name) group_left () dram_operator_leader", "on, right has no"),
    ],
)
def test_a_query_for_what_nobody_exports_is_found(query: str, complaint: str) -> None:
    with pytest.raises(NotExported, match=re.escape(complaint)):
        CHECKER.labels(query)
