"""The chart is upgraded while a job trains and a rollout is under way: neither notices.

The upgrade brings a second replica, a device on every node, and the gateway that its telemetry goes through, all of them restricted pods.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dram_operator.adapters.releases.repository import PREVIOUS
from tests.bench.__main__ import RESULTS
from tests.bench.results import timed
from tests.cluster.api import Api, Object, wait_until
from tests.cluster.prometheus import PrometheusServer
from tests.e2e.bench import Bench
from tests.e2e.installation import CHART, NAMESPACE, RELEASE, Installation, named
from tests.e2e.models import Source
from tests.e2e.releases import BUCKET, Releases, dram
from tests.e2e.rollout_story import ERRORS, GOLDEN
from tests.e2e.story import Story
from tests.e2e.tiny import job_for

VERSION = "0.1.1"
LONG = {"maxSteps": 1500, "checkpoint": {"everySteps": 250}, "seed": 11}
"""A training that is still at work when the upgrade is done."""
BAKE_SECONDS = 10
NODE_CHANNEL = "shops/node"
RESTRICTED_PARTS = ("operator", "agent", "gateway")


@dataclass(frozen=True)
class Upgraded:
    """What was going on, and what it was like right after the upgrade."""

    job: Story
    trainers: set[str]
    """Uids of the pods that trained before."""
    trainers_after: set[str]
    source: Source
    attempt: int
    commits: list[int]
    """Of the release repository, before."""
    device: str
    """The id of the node's device."""


@pytest.fixture(scope="module")
def upgraded(
    bench: Bench,
    undisturbed: Story,
    installation: Installation,
    prometheus: PrometheusServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Upgraded]:
    story, job = bench.story, replace(undisturbed, name="tiny-upgraded")
    device, values = a_node_as_device(installation, bench.releases, prometheus, tmp_path_factory.mktemp("node"))
    chart = newer_chart(tmp_path_factory.mktemp("chart") / "dram")
    attempt, commits = story.status()["attempt"] + 1, list(committed(bench.releases))

    job.apply(job_for(undisturbed).with_training(**LONG))
    source = bench.artifact("upgraded", bench.model)
    trainers = uids(job.wait_stage("train"))
    story.offer(source.spec, GOLDEN, ERRORS, bake_seconds=BAKE_SECONDS)
    story.wait_step("1/3")
    with timed("story.helm_upgrade_seconds", "during a job and a rollout, until two operators are ready", RESULTS):
        installation.install(chart, replicas=2, logLevel="DEBUG", **values)
    yield Upgraded(job, trainers, uids(job.pods("train")), source, attempt, commits, device)
    job.delete()


def newer_chart(folder: Path) -> Path:
    shutil.copytree(CHART, folder)
    described = yaml.safe_load((folder / "Chart.yaml").read_text())
    (folder / "Chart.yaml").write_text(yaml.safe_dump(described | {"version": VERSION, "appVersion": VERSION}))
    return folder


def a_node_as_device(
    installation: Installation, releases: Releases, prometheus: PrometheusServer, folder: Path
) -> tuple[str, dict[str, Any]]:
    """Enrol a node, as the chart's page says; returns its id, and the values that make it a device."""
    api = installation.api
    node = api.list("Node")[0]["metadata"]["labels"]["kubernetes.io/hostname"]
    key = folder / "owner.pem"
    dram("agent", "new-key", str(key))
    dram("agent", "enroll", "--channel", NODE_CHANNEL, "--key", str(key), "--out", str(folder / node))
    device, token = ((folder / node / name).read_text() for name in ("device-id", "token"))
    for name, content in (("dram-devices", device), ("dram-tokens", token)):
        metadata = {"name": name, "namespace": NAMESPACE}
        api.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {node: content}})
    issuers = {"owner.pem.pub": (folder / "owner.pem.pub").read_text()}
    metadata = {"name": "dram-issuers", "namespace": NAMESPACE}
    api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": issuers})
    agent = {"enabled": True, "image": named(installation.cluster.agent_image), "channel": NODE_CHANNEL}
    agent |= {"repository": releases.url, "devicesSecret": "dram-devices", "tokensSecret": "dram-tokens"}
    agent |= {"nodeSelector": {"kubernetes.io/hostname": node}, "resources": {"requests": {"cpu": "20m"}}}
    backend = {"url": f"{prometheus.url}/api/v1/otlp/v1/metrics"}
    gateway = {"enabled": True, "issuers": {"configMap": "dram-issuers"}, "backend": backend}
    return device.strip(), {"agent": agent, "gateway": gateway}


def uids(objects: list[Object]) -> set[str]:
    return {str(obj["metadata"]["uid"]) for obj in objects}


def committed(releases: Releases) -> dict[int, int]:
    """The commits of the release repository, oldest first, and what each came after."""
    store = releases.s3.client()
    listed = store.list_objects_v2(Bucket=BUCKET, Prefix="metadata/")["Contents"]
    keys = [entry["Key"] for entry in listed if entry["Key"].endswith(".snapshot.json")]
    bodies = [json.loads(store.get_object(Bucket=BUCKET, Key=key)["Body"].read())["signed"] for key in keys]
    return dict(sorted((int(body["version"]), int(body.get(PREVIOUS, 0))) for body in bodies))


def test_every_part_is_a_restricted_pod_of_the_new_version(upgraded: Upgraded, installation: Installation) -> None:
    labels = installation.api.get("Namespace", NAMESPACE)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for part in RESTRICTED_PARTS:
        pods = wait_until(lambda part=part: running(installation.api, part), f"the {part} to run")  # type: ignore[misc]
        assert {pod["metadata"]["labels"]["app.kubernetes.io/version"] for pod in pods} == {VERSION}
        assert len(pods) == (2 if part == "operator" else 1)


def running(api: Api, part: str) -> list[Object]:
    selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={part}"
    pods = api.list("Pod", NAMESPACE, labels=selector)
    return pods if pods and all(pod["status"].get("phase") == "Running" for pod in pods) else []


def test_the_job_goes_on_in_the_pods_that_it_had(upgraded: Upgraded) -> None:
    assert upgraded.trainers_after == upgraded.trainers
    status = upgraded.job.wait_succeeded()
    assert {(stage["attempt"], stage["retries"]) for stage in status["stages"]} == {(1, 0)}


def test_the_rollout_goes_on_at_its_step(upgraded: Upgraded, bench: Bench) -> None:
    story = bench.story
    assert story.wait_completed(upgraded.attempt) == upgraded.source.sha256
    digest = upgraded.source.sha256[:12]
    told = [(reason, message) for reason, message in story.events() if digest in message]
    started = [message for reason, message in told if reason == "StepStarted"]
    assert len(started) == len(set(started)) == 3
    assert {"RollingBack", "RolledBack"}.isdisjoint(reason for reason, _ in told)
    since = {version: before for version, before in committed(bench.releases).items() if version > upgraded.commits[-1]}
    assert since
    assert all(before == version - 1 for version, before in since.items()), f"versions were skipped: {since}"


def test_the_nodes_telemetry_comes_through_the_gateway(upgraded: Upgraded, bench: Bench) -> None:
    device = f'dram_device_info{{channel="{NODE_CHANNEL}",device="{upgraded.device}"}}'
    pushed = wait_until(lambda: bench.story.query(device), "the node's series", explain=bench.story.explain)
    namespace = NODE_CHANNEL.partition("/")[0]
    assert {labels["job"] for labels, _ in pushed} == {f"{namespace}/dram-agent"}, "the gateway says whose they are"
    assert {labels["instance"] for labels, _ in pushed} == {upgraded.device}


def test_the_other_replica_takes_over_from_a_leader_that_is_killed(
    upgraded: Upgraded, installation: Installation
) -> None:
    leader = wait_until(installation.leader, "a leader")
    (standby,) = {pod["metadata"]["name"] for pod in installation.pods()} - {leader}
    installation.api.kill_pod(leader, NAMESPACE)
    wait_until(lambda: installation.leader() == standby, "the standby to lead", explain=installation.explain)
