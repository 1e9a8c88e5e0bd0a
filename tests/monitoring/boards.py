"""The dashboards as they lie in the chart, and everything in them that is asked of Prometheus."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import urllib3

from tests.cluster.folders import REPOSITORY

FOLDER = REPOSITORY / "charts" / "dram" / "files" / "dashboards"
BOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")
CHOICES = {
    "everything": {"namespace": ".+", "name": ".+", "metric": ".+"},
    "one": {"namespace": "(tv|ns)", "name": "bot", "metric": "error-rate"},
    "tutorial": {"namespace": "shop", "name": "kiosk", "metric": "p95-latency"},
}


@dataclass(frozen=True)
class Asked:
    """A query of a dashboard."""

    where: str
    expr: str
    legend: str = ""


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Asked]:
    for uid, board in BOARDS.items():
        for panel in panels(board):
            for target in panel["targets"]:
                where = f"{uid}/{panel['title']}/{target['refId']}"
                yield Asked(where, target["expr"], target.get("legendFormat", ""))
        for mark in board.get("annotations", {}).get("list", ()):
            yield Asked(f"{uid}/mark/{mark['name']}", mark["expr"], mark["titleFormat"])


def variables() -> Iterator[tuple[str, dict[str, Any]]]:
    for uid, board in BOARDS.items():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{uid}/{variable['name']}", variable


def was_shown(prometheus: str, asked: Asked, choice: str = "everything", back: str = "30m:1s") -> bool:
    """Whether a panel had a number at any time of the last while; `prometheus` is the server's address."""
    query = f"count(last_over_time(({filled(asked.expr, choice)})[{back}]))"
    answer = urllib3.request("GET", f"{prometheus}/api/v1/query", fields={"query": query}).json()
    return bool(answer["data"]["result"])


def filled(text: str, choice: str = "everything") -> str:
    """As Grafana sends it."""
    words = {**CHOICES[choice], "__rate_interval": "1h", "__range": "1h"}
    return re.sub(r"\$([a-z_]\w*)", lambda found: words[found[1]], text)
