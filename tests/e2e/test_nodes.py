"""A node that is a device keeps its state in a folder of its own: the next pod goes on where the last one was."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3
import yaml

from tests.cluster.api import Api, wait_until
from tests.e2e.cluster import Cluster
from tests.e2e.installation import CHART, RELEASE, helm, named
from tests.e2e.releases import Releases, dram

NAMESPACE = "node-state"
ADMITS_FOLDERS = {"pod-security.kubernetes.io/enforce": "privileged"}
USER = 65532
"""As whom the chart's pods run."""
SEEN = "metadata/timestamp.json"


@dataclass(frozen=True)
class KeptState:
    """The node's device."""

    api: Api
    folder: Path

    def address(self) -> str:
        """Of the pod whose agent answers; empty while none does."""
        for pod in self.api.list("Pod", NAMESPACE):
            address = pod["status"].get("podIP", "")
            if address and "deletionTimestamp" not in pod["metadata"] and _answers(address):
                return str(address)
        return ""

    def explain(self) -> str:
        """What the pods say."""
        pods = self.api.list("Pod", NAMESPACE)
        events = [event["message"] for event in self.api.list("Event", NAMESPACE)]
        return "\n".join([*events, *(self.api.try_logs(pod["metadata"]["name"], NAMESPACE) for pod in pods)])


def _answers(address: str) -> bool:
    try:
        return urllib3.request("GET", f"http://{address}:9108/metrics", timeout=2, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


@pytest.fixture
def device(cluster: Cluster, releases: Releases, tmp_path: Path) -> Iterator[KeptState]:
    """The chart's agents alone, in a namespace that admits folders of the node."""
    if cluster.node is None:
        pytest.skip("needs a folder of the node: unset KUBECONFIG to run this on a node that is started here")
    api, folder = cluster.api, tmp_path / "state"
    folder.mkdir(mode=0o700)
    os.chown(folder, USER, USER)
    node = api.list("Node")[0]["metadata"]["labels"]["kubernetes.io/hostname"]
    dram("agent", "new-key", str(tmp_path / "owner.pem"))
    dram(
        "agent",
        "enroll",
        "--channel",
        f"{NAMESPACE}/box",
        "--key",
        str(tmp_path / "owner.pem"),
        "--out",
        str(tmp_path / node),
    )
    identity = {node: (tmp_path / node / "device-id").read_text()}
    agent = {
        "enabled": True,
        "image": named(cluster.agent_image),
        "channel": f"{NAMESPACE}/box",
        "repository": releases.url,
    }
    agent |= {"devicesSecret": "devices", "state": {"hostPath": str(folder)}, "resources": {"requests": {"cpu": "20m"}}}
    values = {
        "releases": {"uri": "s3://unused", "root": releases.root, "operatorKey": {"secret": "unused"}},
        "agent": agent,
    }
    chart = (
        "template",
        RELEASE,
        str(CHART),
        "--namespace",
        NAMESPACE,
        "--show-only",
        "templates/agent.yaml",
        "--values",
        "-",
    )
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": ADMITS_FOLDERS}})
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "devices", "namespace": NAMESPACE}}
    try:
        api.apply(secret | {"stringData": identity})
        for obj in yaml.safe_load_all(helm(cluster, *chart, values=values)):
            api.apply(obj)
        yield KeptState(api, folder)
    finally:
        api.delete("Namespace", NAMESPACE)
        wait_until(lambda: api.find("Namespace", NAMESPACE) is None, "the namespace to go")


def test_the_next_pod_goes_on_in_the_nodes_folder(device: KeptState) -> None:
    seen = device.folder / SEEN
    first = wait_until(
        lambda: seen.exists() and device.address(), "a device that has read the repository", explain=device.explain
    )
    (pod,) = device.api.list("Pod", NAMESPACE)
    device.api.kill_pod(pod["metadata"]["name"], NAMESPACE)
    wait_until(
        lambda: device.address() not in ("", first), "the next pod to work in the folder", explain=device.explain
    )
    assert seen.stat().st_uid == USER
