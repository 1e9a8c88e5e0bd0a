"""The examples for devices say what the agent and the gateway read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from dram_agent.gateway.settings import GatewaySettings
from dram_agent.settings import AgentSettings, read_settings, read_yaml
from dram_operator.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples/edge-agent"
HARDENING = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectKernelTunables": "yes",
    "RestrictNamespaces": "yes",
    "SystemCallFilter": "@system-service",
    "UMask": "0077",
}


def unit() -> dict[str, str]:
    """The directives of the service."""
    lines = (EXAMPLES / "dram-agent.service").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name: value for name, value in pairs}  # noqa: C416 -- split gives lists, not pairs


def objects() -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())


def commands() -> list[list[str]]:
    """Every command line of the examples."""
    pods = [each["spec"]["template"]["spec"] for each in objects() if each["kind"] == "Deployment"]
    args = [container["args"] for pod in pods for container in pod["containers"]]
    return [unit()["ExecStart"].split()[1:], *args]


def test_the_settings_of_a_device_and_of_a_gateway_are_valid() -> None:
    agent = read_settings(EXAMPLES / "agent.yaml")
    gateway = read_yaml(GatewaySettings, EXAMPLES / "gateway.yaml")
    assert agent.push is not None
    assert agent.push.interval_seconds >= gateway.limits.least_seconds


def test_the_settings_in_the_manifests_are_valid() -> None:
    maps = {each["metadata"]["name"]: each["data"] for each in objects() if each["kind"] == "ConfigMap"}
    agent = AgentSettings.model_validate(yaml.safe_load(maps["edge-agent"]["agent.yaml"]))
    gateway = GatewaySettings.model_validate(yaml.safe_load(maps["telemetry-gateway"]["gateway.yaml"]))
    assert agent.push is not None
    (service,) = [each for each in objects() if each["kind"] == "Service"]
    port = gateway.listen.rpartition(":")[2]
    assert agent.push.url == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/v1/metrics"
    assert str(service["spec"]["ports"][0]["port"]) == port


def test_everything_that_the_settings_name_is_mounted() -> None:
    for each in (each for each in objects() if each["kind"] == "Deployment"):
        (container,) = each["spec"]["template"]["spec"]["containers"]
        mounted = tuple(mount["mountPath"] for mount in container["volumeMounts"])
        settings = next(
            o for o in objects() if o["kind"] == "ConfigMap" and o["metadata"] == {"name": each["metadata"]["name"]}
        )
        named = [
            word.strip("[],")
            for word in " ".join(settings["data"].values()).split()
            if word.strip("[]").startswith("/etc/")
        ]
        assert [path for path in [*named, container["args"][-1]] if not path.startswith(mounted)] == []


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_every_command_line_is_one(arguments: list[str]) -> None:
    command = main.get_command(click.Context(main), arguments[0])
    assert command is not None
    context = command.make_context(arguments[0], list(arguments[1:]))
    assert str(context.params["config"]).startswith("/etc/dram/")


def test_the_service_may_do_no_more_than_it_has_to() -> None:
    assert {name: unit().get(name) for name in HARDENING} == HARDENING
    assert unit()["StateDirectory"] == "dram"
    assert str(AgentSettings.model_fields["state"].default) == "/var/lib/dram"
