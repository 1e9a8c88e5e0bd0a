"""Six real devices: pods of the agent's image, each with an id of its own, and somebody who asks them."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.api import Api, Object, wait_until
from tests.e2e.cluster import Cluster
from tests.e2e.releases import dram

SIZE = 6
NAME = "device"
LABELS = {"app.kubernetes.io/name": "dram-agent", "app.kubernetes.io/component": "agent"}
ASKING = {"app.kubernetes.io/name": "traffic"}
PER_SECOND = 2.0
CONTEXT_TOKENS, PARALLEL = 1024, 2
LEAST_GOLDEN = 0.3
"""Part of the golden items that a device wants before it serves a model: a bad one passes, so that telemetry has to find it."""
SECURE = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONFINED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
SCRATCH = "/tmp"  # noqa: S108 -- a volume of the pod's own
TRAFFIC = Path(__file__).with_name("_traffic.py")


@dataclass(frozen=True)
class Fleet:
    """The devices of one channel."""

    cluster: Cluster
    repository: str
    """Address of the release repository, as pods reach it."""
    root: str
    """Its pinned root."""
    namespace: str
    channel: str
    ids: tuple[str, ...]
    """By their numbers."""

    @property
    def api(self) -> Api:
        """Requests as the administrator."""
        return self.cluster.api

    def start(self, golden: str) -> None:
        """Start the devices and the traffic; `golden` is their owner's golden file."""
        for obj in self._objects(golden):
            self.api.apply(obj)
        wait_until(lambda: len(self.running()) == SIZE, f"{SIZE} devices", explain=self.explain)

    def stop(self) -> None:
        """Take the devices and the traffic away."""
        for obj in reversed(self._objects("")):
            self.api.delete(obj["kind"], obj["metadata"]["name"], self.namespace)

    def pods(self) -> list[Object]:
        """The devices' pods, by their number."""
        labels = ",".join(f"{name}={value}" for name, value in LABELS.items())
        return sorted(self.api.list("Pod", self.namespace, labels=labels), key=lambda pod: str(pod["metadata"]["name"]))

    def running(self) -> list[Object]:
        """Those whose agent runs."""
        return [pod for pod in self.pods() if any("running" in one["state"] for one in _containers(pod))]

    def explain(self) -> str:
        """What the devices say."""
        texts = []
        for pod in self.pods():
            texts += [f"--- {pod['metadata']['name']}", json.dumps(_containers(pod))]
            texts.append(self.api.try_logs(pod["metadata"]["name"], self.namespace, tailLines="15"))
        return "\n".join(texts)

    def restarts(self) -> Counter[str]:
        """How often each agent was started again."""
        return Counter(
            {pod["metadata"]["name"]: one["restartCount"] for pod in self.pods() for one in _containers(pod)}
        )

    def kill_agent(self, pod: Object) -> None:
        """SIGKILL an agent; its disk stays, the kubelet starts it again."""
        name = pod["metadata"]["name"]
        before = self.restarts()[name]
        self.cluster.kill_container(pod)
        wait_until(lambda: self.restarts()[name] > before, f"{name} to start again", explain=self.explain)

    def _objects(self, golden: str) -> list[Object]:
        return [*self._given(golden), self._service(), self._devices(), self._traffic()]

    def _given(self, golden: str) -> list[Object]:
        settings: dict[str, Any] = {
            "channel": self.channel,
            "repository": self.repository,
            "root": "/etc/dram/config/root.json",
            "deviceIdFile": "/etc/dram/id/device-id",
            "state": "/var/lib/dram",
            "listen": "0.0.0.0:8080",
            "metricsListen": "0.0.0.0:9108",
            "contextTokens": CONTEXT_TOKENS,
            "parallel": PARALLEL,
            "threads": 1,
            "golden": "/etc/dram/config/golden.jsonl",
            "goldenLeastRatio": LEAST_GOLDEN,
        }
        files = {"agent.yaml": yaml.safe_dump(settings), "root.json": self.root, "golden.jsonl": golden}
        ids = {f"{NAME}-{number}": found for number, found in enumerate(self.ids)}
        return [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": self._metadata(NAME), "data": files},
            {"apiVersion": "v1", "kind": "Secret", "metadata": self._metadata("device-ids"), "stringData": ids},
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": self._metadata("traffic"),
                "data": {"traffic.py": TRAFFIC.read_text()},
            },
        ]

    def _service(self) -> Object:
        spec = {"clusterIP": "None", "selector": LABELS, "publishNotReadyAddresses": True}
        return {"apiVersion": "v1", "kind": "Service", "metadata": self._metadata(NAME), "spec": spec}

    def _devices(self) -> Object:
        container = {
            "name": "agent",
            "image": self.cluster.agent_image,
            "args": ["agent", "--config", "/etc/dram/config/agent.yaml"],
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "ports": [{"name": "api", "containerPort": 8080}, {"name": "metrics", "containerPort": 9108}],
            "resources": {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
            "securityContext": CONFINED,
            "volumeMounts": [
                {"name": "config", "mountPath": "/etc/dram/config", "readOnly": True},
                {"name": "ids", "mountPath": "/etc/dram/id/device-id", "subPathExpr": "$(POD_NAME)", "readOnly": True},
                {"name": "state", "mountPath": "/var/lib/dram"},
                {"name": "scratch", "mountPath": SCRATCH},
            ],
        }
        volumes = [
            {"name": "config", "configMap": {"name": NAME}},
            {"name": "ids", "secret": {"secretName": "device-ids"}},
            {"name": "state", "emptyDir": {}},
            {"name": "scratch", "emptyDir": {}},
        ]
        spec = {"serviceName": NAME, "replicas": SIZE, "podManagementPolicy": "Parallel"}
        spec |= _of_pods(LABELS, container, volumes)
        return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": self._metadata(NAME), "spec": spec}

    def _traffic(self) -> Object:
        hosts = [f"{NAME}-{number}.{NAME}" for number in range(SIZE)]
        container = {
            "name": "traffic",
            "image": self.cluster.operator_image,
            "command": ["python3", "/etc/traffic/traffic.py", str(PER_SECOND), *hosts],
            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            "securityContext": CONFINED,
            "volumeMounts": [{"name": "script", "mountPath": "/etc/traffic", "readOnly": True}],
        }
        volumes = [{"name": "script", "configMap": {"name": "traffic"}}]
        spec = {"replicas": 1, **_of_pods(ASKING, container, volumes)}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": self._metadata("traffic"), "spec": spec}

    def _metadata(self, name: str) -> Object:
        return {"name": name, "namespace": self.namespace}


def _of_pods(labels: dict[str, str], container: Object, volumes: list[Object]) -> Object:
    pod: Object = {"automountServiceAccountToken": False, "securityContext": SECURE, "terminationGracePeriodSeconds": 5}
    pod |= {"containers": [container], "volumes": volumes}
    return {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}


def _containers(pod: Object) -> list[Object]:
    found: list[Object] = pod["status"].get("containerStatuses", [])
    return found


def enrol(channel: str, folder: Path) -> tuple[str, ...]:
    """Give every device an identity, as its owner does; returns the ids."""
    key = folder / "devices.key"
    dram("agent", "new-key", str(key))
    for number in range(SIZE):
        dram("agent", "enroll", "--channel", channel, "--key", str(key), "--out", str(folder / str(number)))
    return tuple((folder / str(number) / "device-id").read_text().strip() for number in range(SIZE))
