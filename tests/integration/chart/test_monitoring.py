"""What the chart gives to those who watch: scraping, alerts and dashboards, each where it was asked for."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from charts.monitoring.dashboards import files
from tests.cluster.api import Api, Object
from tests.cluster.binaries import binary
from tests.cluster.controlplane import ControlPlane
from tests.integration.chart.rendering import of_kind, pods, render
from tests.integration.chart.test_devices import AGENT, GATEWAY
from tests.monitoring.test_alerts import FILE, NAMES

ALERTS = "monitoring.alerts.enabled=true"
SCRAPED = "monitoring.serviceMonitor.enabled=true"
DASHBOARDS = "monitoring.dashboards.enabled=true"


def one(objects: list[Object], kind: str) -> Object:
    [found] = of_kind(objects, kind)
    return found


def test_a_plain_installation_needs_no_other_operator() -> None:
    groups = {obj["apiVersion"].partition("/")[0] for obj in render()}
    assert "monitoring.coreos.com" not in groups
    assert of_kind(render(), "ConfigMap") == []


def test_the_operator_is_scraped_with_its_own_labels() -> None:
    objects = render(SCRAPED, "monitoring.serviceMonitor.labels.release=prom", "monitoring.serviceMonitor.interval=10s")
    monitor, service = one(objects, "ServiceMonitor"), one(objects, "Service")
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint == {"port": "metrics", "interval": "10s", "honorLabels": True}
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["metadata"]["labels"]["release"] == "prom"
    assert monitor["metadata"]["namespace"] == service["metadata"]["namespace"]


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ((), set()),
        (GATEWAY, {"dram-gateway"}),
        (AGENT, {"dram-agent"}),
        ((*AGENT, "agent.tokensSecret=tokens"), {"dram-agent"}),
        ((*AGENT, "agent.tokensSecret=tokens", *GATEWAY), {"dram-gateway"}),
    ],
)
def test_agents_that_do_not_push_and_the_gateway_are_scraped(values: tuple[str, ...], want: set[str]) -> None:
    objects = render(SCRAPED, "monitoring.serviceMonitor.labels.release=prom", *values)
    monitors = {one["metadata"]["name"]: one for one in of_kind(objects, "PodMonitor")}
    assert monitors.keys() == want
    for name, monitor in monitors.items():
        (pod,) = (one for one in pods(objects) if one["metadata"]["name"] == name)
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint == {"port": "metrics", "interval": "30s", "honorLabels": True}
        assert endpoint["port"] in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        assert monitor["metadata"]["namespace"] == pod["metadata"]["namespace"]
        assert monitor["metadata"]["labels"]["release"] == "prom"


def test_the_rule_object_holds_the_rules_file_and_promtool_takes_it(tmp_path: Path) -> None:
    rule = one(render(ALERTS, "monitoring.alerts.labels.release=prom"), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(FILE.read_text())
    assert rule["metadata"]["labels"]["release"] == "prom"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    subprocess.run([str(binary("promtool")), "check", "rules", str(tmp_path / "rules.yaml")], check=True)


def test_recording_rules_are_installed_where_asked_for() -> None:
    asked = ("monitoring.recordingRules.enabled=true", "monitoring.recordingRules.labels.release=prom")
    rule = one(render(*asked), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((FILE.parent / "recording-rules.yaml").read_text())
    assert rule["metadata"]["labels"]["release"] == "prom"


def test_alerts_can_be_left_out_and_lead_to_their_pages() -> None:
    left_out = {"DramDevicesSilent", "DramGatewayBackendFails", "DramGatewayRevocationsStale"}
    names = ",".join(sorted(left_out))
    rule = one(
        render(
            ALERTS, f"monitoring.alerts.disabled={{{names}}}", "monitoring.alerts.runbooks=https://docs.example/alerts/"
        ),
        "PrometheusRule",
    )
    rules = [each for group in rule["spec"]["groups"] for each in group["rules"]]
    assert {each["alert"] for each in rules} == set(NAMES) - left_out
    assert "dram-gateway" not in {group["name"] for group in rule["spec"]["groups"]}
    for each in rules:
        assert each["annotations"]["runbook_url"] == f"https://docs.example/alerts/{each['alert']}.md"


@pytest.mark.parametrize(
    ("values", "namespace", "label"),
    [
        ((DASHBOARDS,), "chart", ("grafana_dashboard", "1")),
        (
            (
                DASHBOARDS,
                "monitoring.dashboards.namespace=grafana",
                "monitoring.dashboards.label=shown",
                "monitoring.dashboards.labelValue=yes",
            ),
            "grafana",
            ("shown", "yes"),
        ),
    ],
)
def test_dashboards_lie_where_the_sidecar_looks(
    values: tuple[str, ...], namespace: str, label: tuple[str, str]
) -> None:
    maps = of_kind(render(*values), "ConfigMap")
    texts = {name: json.loads(text) for each in maps for name, text in each["data"].items()}
    assert texts == {name: json.loads(text) for name, text in files().items()}
    for each in maps:
        assert each["metadata"]["namespace"] == namespace
        assert each["metadata"]["labels"][label[0]] == label[1]
        assert each["metadata"]["annotations"] == {"grafana_folder": "Dram"}


def test_a_server_takes_the_dashboards(control_plane: ControlPlane) -> None:
    api: Api = control_plane.api()
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "dashboards"}})
    for each in of_kind(render(DASHBOARDS, namespace="dashboards"), "ConfigMap"):
        api.apply(each)
        assert api.get("ConfigMap", each["metadata"]["name"], "dashboards")["data"] == each["data"]
