"""Agents and their gateway: what the chart writes down for them is what they read, and every file that it names is mounted."""

from pathlib import Path
from typing import Any, TypeVar

import pytest

from dram_agent.gateway.settings import GatewaySettings
from dram_agent.settings import AgentSettings, read_yaml
from dram_workers.model import Model
from tests.cluster.api import Object
from tests.integration.chart.rendering import ChartRefused, of_kind, render

T = TypeVar("T", bound=Model)
AGENT = (
    *("releases.uri=s3://r", "releases.root=the-root", "releases.operatorKey.secret=keys"),
    *(
        "agent.enabled=true",
        "agent.channel=tv/bot",
        "agent.repository=https://r.example.com",
        "agent.devicesSecret=ids",
    ),
)
GATEWAY = (
    *("gateway.enabled=true", "gateway.issuers.configMap=issuers", "gateway.issuers.revocations=revoked.jsonl"),
    *("gateway.backend.url=https://mimir.example.com/otlp/v1/metrics", "gateway.backend.token.secret=mimir"),
    *("gateway.backend.headers.X-Scope-OrgID=edge", "gateway.backend.ca.secret=authority"),
)
MORE = (
    *("agent.tokensSecret=tokens", "agent.deviceClass=kiosk", "agent.labels.ring=early"),
    *("agent.cloud.url=https://llm.example.com", "agent.cloud.model=large", "agent.cloud.key.secret=llm"),
    *("agent.ca.secret=authority", "agent.ca.key=own.pem", "agent.cloud.ca.secret=llm"),
)


def part(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [obj for obj in of_kind(objects, kind) if obj["metadata"]["name"] == f"dram-{name}"]
    return found


def settings(kind: type[T], objects: list[Object], name: str, folder: Path) -> T:
    file = folder / f"{name}.yaml"
    file.write_text(part(objects, "ConfigMap", name)["data"][file.name])
    return read_yaml(kind, file)


def named_files(model: Model) -> set[str]:
    """Every path in settings that the chart chose, not their defaults."""

    def below(value: Any) -> set[str]:
        if isinstance(value, Path):
            return {str(value)}
        if isinstance(value, dict):
            return set().union(*(below(inner) for inner in value.values()))
        return set().union(*(below(inner) for inner in value)) if isinstance(value, list | tuple) else set()

    return below(model.model_dump(exclude_unset=True))


def mounted(workload: Object) -> list[str]:
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    return [mount["mountPath"] for mount in container["volumeMounts"]]


def assert_mounted(files: set[str], workload: Object) -> None:
    for file in files:
        assert any(file == path or file.startswith(f"{path}/") for path in mounted(workload)), file


def test_a_gateway_reads_its_settings_and_finds_its_files(tmp_path: Path) -> None:
    objects = render(*GATEWAY)
    read = settings(GatewaySettings, objects, "gateway", tmp_path)
    assert read.backend.headers == {"X-Scope-OrgID": "edge"}
    files = named_files(read)
    issuers = {"/etc/dram/issuers/owner.pem.pub", "/etc/dram/issuers/revoked.jsonl"}
    assert files == issuers | {"/etc/dram/backend/token", "/etc/dram/backend-ca/ca.crt"}
    assert_mounted(files, part(objects, "Deployment", "gateway"))


def test_an_agent_reads_its_settings_and_finds_its_files(tmp_path: Path) -> None:
    objects = render(*AGENT, *MORE, *GATEWAY)
    read = settings(AgentSettings, objects, "agent", tmp_path)
    assert (read.channel, read.device_class, read.labels) == ("tv/bot", "kiosk", {"ring": "early"})
    assert read.push is not None
    service = part(objects, "Service", "gateway")
    port = service["spec"]["ports"][0]["port"]
    assert read.push.url == f"http://{service['metadata']['name']}.chart.svc:{port}/v1/metrics"
    files = named_files(read)
    assert {"/etc/dram/device-id", "/etc/dram/token", "/etc/dram/cloud/key", "/etc/dram/trust/root.json"} <= files
    assert {"/etc/dram/ca/ca.crt", "/etc/dram/cloud-ca/ca.crt"} <= files
    volumes = part(objects, "DaemonSet", "agent")["spec"]["template"]["spec"]["volumes"]
    (authority,) = (one["secret"] for one in volumes if one["name"] == "ca")
    assert (authority["secretName"], authority["items"]) == ("authority", [{"key": "own.pem", "path": "ca.crt"}])
    assert_mounted(files, part(objects, "DaemonSet", "agent"))
    assert part(objects, "ConfigMap", "agent")["data"]["root.json"] == "the-root"


def test_each_node_is_a_device_of_its_own_and_never_two() -> None:
    daemons = part(render(*AGENT, *MORE, *GATEWAY), "DaemonSet", "agent")
    (container,) = daemons["spec"]["template"]["spec"]["containers"]
    by_node = {one["name"]: one.get("subPathExpr") for one in container["volumeMounts"] if "subPathExpr" in one}
    assert by_node == {"devices": "$(NODE_NAME)", "tokens": "$(NODE_NAME)"}
    assert daemons["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"] == 0


def test_state_goes_with_the_pod_unless_the_node_keeps_it() -> None:
    kept = {}
    for values in ((), ("agent.state.hostPath=/var/lib/dram",)):
        pod = part(render(*AGENT, *values), "DaemonSet", "agent")["spec"]["template"]["spec"]
        kept[values] = next(one for one in pod["volumes"] if one["name"] == "state")
    node = {"path": "/var/lib/dram", "type": "Directory"}
    assert list(kept.values()) == [{"name": "state", "emptyDir": {}}, {"name": "state", "hostPath": node}]
    with pytest.raises(ChartRefused, match=r"state\.?/?hostPath"):
        render(*AGENT, "agent.state.hostPath=var")


def test_without_a_gateway_an_agent_is_scraped(tmp_path: Path) -> None:
    assert settings(AgentSettings, render(*AGENT, *MORE), "agent", tmp_path).push is None


def test_for_trying_out_both_use_what_is_there(tmp_path: Path) -> None:
    objects = render("tryout.enabled=true", *AGENT[3:5], AGENT[6], *GATEWAY[:2])
    assert (
        settings(AgentSettings, objects, "agent", tmp_path).repository
        == "http://dram-tryout-s3.chart.svc:8333/releases"
    )
    backend = settings(GatewaySettings, objects, "gateway", tmp_path).backend.url
    assert backend == "http://dram-tryout-prometheus.chart.svc:9090/api/v1/otlp/v1/metrics"


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        (("agent.enabled=true",), "agent.channel"),
        (("agent.enabled=true", "agent.channel=a/b"), "agent.devicesSecret"),
        (("agent.enabled=true", "agent.channel=a/b", "agent.devicesSecret=x"), "agent.repository"),
        (AGENT[3:], "releases.root"),
        (("gateway.enabled=true",), "gateway.issuers.configMap"),
        (("gateway.enabled=true", "gateway.issuers.configMap=x"), "gateway.backend.url"),
    ],
)
def test_what_is_missing_is_named(values: tuple[str, ...], missing: str) -> None:
    with pytest.raises(ChartRefused, match=f"{missing} is needed"):
        render(*values)
