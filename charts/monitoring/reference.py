"""The reference pages of metrics and alerts. `python -m charts.monitoring.reference FOLDER` writes them."""

import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from charts.monitoring.catalogue import Exported, device_metrics, gateway_metrics, operator_metrics
from dram_agent.errors import Cause
from dram_agent.gateway.refusal import Reason
from dram_agent.gateway.stamp import Dropped
from dram_agent.standing import Arm, Phase
from dram_agent.telemetry import FallbackCause, Outcome, ServedBy
from dram_operator.core.rollout.recording import recordings
from dram_operator.runtime.metrics import LOSS_TERMS, SHOWN
from dram_operator.runtime.rollouts.metrics import DEVICE_STATES, STATES, VERDICTS

ALERTS = Path(__file__).parents[1] / "dram" / "files" / "alerts.yaml"
RUNBOOKS = "../operations/alerts"
VALUES: dict[tuple[str, str], Iterable[str] | type[StrEnum]] = {
    ("dram_job_condition", "condition"): SHOWN,
    ("dram_job_loss", "term"): LOSS_TERMS.values(),
    ("dram_rollout_devices", "state"): DEVICE_STATES,
    ("dram_rollout_metric_verdict", "verdict"): VERDICTS,
    ("dram_rollout_state", "state"): STATES,
    ("dram_device_fallbacks_total", "cause"): FallbackCause,
    ("dram_device_refused_metadata_total", "cause"): Cause,
    ("dram_device_info", "arm"): Arm,
    ("dram_device_requests_total", "outcome"): Outcome,
    ("dram_device_requests_total", "served_by"): ServedBy,
    ("dram_device_update_state", "state"): Phase,
    ("dram_gateway_dropped_points_total", "cause"): Dropped,
    ("dram_gateway_refused_total", "cause"): Reason,
}
"""Labels whose values are fixed."""


def pages() -> dict[str, str]:
    """Every page as Markdown, by the name of its file."""
    return {"metrics.md": "\n".join(_metrics()), "alerts.md": "\n".join(_alerts())}


def _metrics() -> Iterator[str]:
    yield from ("# Metrics", "", "This page is made from the code by `make docs`.", "")
    yield "The operator shows them on port 8080 under `/metrics`. `namespace` and `name` are those of the object, not of the pod: scrape with `honorLabels: true`."
    yield from ("", "## Operator", "", *_table(operator_metrics()))
    yield from ("## Devices", "")
    yield "Scraped from the agent, or pushed by OTLP. `channel` is `namespace/name` of the EdgeRollout; `device` is there only where the owner allows it; `release` is a digest, or `none`. `dram_device_info` has the owner's labels too, as `label_<name>`."
    yield from ("", *_table(device_metrics()))
    yield from ("## Gateway", "", "On its own port for metrics, under `/metrics`.", "", *_table(gateway_metrics()))
    yield from ("## Recorded", "")
    yield "By the [recording rules](../how-to/large-fleets.md) in `charts/dram/files/recording-rules.yaml`, for fleets of more than 10,000 devices. Those of the level `device` stay where they are made."
    yield from ("", "| Series | Labels set | Meaning |", "| --- | --- | --- |", *_recorded(), "")
    yield from ("## Values of labels", "", "| Metric | Label | Values |", "| --- | --- | --- |")
    for (metric, label), values in sorted(VALUES.items()):
        yield f"| `{metric}` | `{label}` | {', '.join(f'`{value}`' for value in values)} |"
    yield ""


def _table(metrics: list[Exported]) -> Iterator[str]:
    yield from ("| Name | Type | Labels | Meaning |", "| --- | --- | --- | --- |")
    for each in metrics:
        yield f"| `{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} | {each.meaning} |"
    yield ""


def _recorded() -> Iterator[str]:
    """A row for each series, its spans together."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for each in recordings():
        row = rows.setdefault((each.record, each.labels.get("state", ""), each.meaning), [])
        row += [each.labels["within"]] if "within" in each.labels else []
    for (name, state, meaning), spans in rows.items():
        labels = [f'`state="{state}"`'] if state else []
        labels += [f"`within` {', '.join(spans)}"] if spans else []
        yield f"| `{name}` | {'; '.join(labels)} | {meaning} |"


def _alerts() -> Iterator[str]:
    yield from ("# Alerts", "", "This page is made from `charts/dram/files/alerts.yaml` by `make docs`.", "")
    yield "That file is a plain rules file for Prometheus; with `monitoring.alerts.enabled` the chart installs it as a PrometheusRule."
    yield ""
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        yield from (f"## {group['name']}", "", "| Alert | Severity | After | Meaning |", "| --- | --- | --- | --- |")
        for rule in group["rules"]:
            yield _row(rule)
        yield ""


def _row(rule: dict[str, Any]) -> str:
    name, after = rule["alert"], rule.get("for", "at once")
    meaning = (Path(__file__).parents[2] / "docs" / "operations" / "alerts" / f"{name}.md").read_text().split("\n\n")[2]
    meaning = " ".join(meaning.split()).replace("](Dram", f"]({RUNBOOKS}/Dram")
    return f"| [{name}]({RUNBOOKS}/{name}.md) | {rule['labels']['severity']} | {after} | {meaning} |"


def main() -> None:
    """Write the pages into the folder given as the only argument."""
    for name, text in pages().items():
        (Path(sys.argv[1]) / name).write_text(text)


if __name__ == "__main__":
    main()
