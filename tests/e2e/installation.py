"""Dram as its chart installs it."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.api import Api, Object, wait_until
from tests.cluster.binaries import binary
from tests.cluster.folders import REPOSITORY
from tests.cluster.prometheus import PrometheusServer
from tests.e2e.cluster import Cluster
from tests.e2e.releases import CREDENTIALS, Releases

NAMESPACE = "dram-system"
RELEASE = "dram"
CHART = REPOSITORY / "charts" / "dram"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
SWITCH = f"{RELEASE}-switch"
SELECTOR = "app.kubernetes.io/component=operator"


@dataclass(frozen=True)
class Installation:
    """A running operator."""

    cluster: Cluster
    values: dict[str, Any]
    """Those that the chart was installed with."""

    @property
    def api(self) -> Api:
        """Requests as the administrator."""
        return self.cluster.api

    @property
    def user(self) -> str:
        """The operator's name in the audit log."""
        return f"system:serviceaccount:{NAMESPACE}:{RELEASE}"

    def rules(self) -> list[Object]:
        """Every RBAC rule that the chart gave the operator."""
        ours = f"app.kubernetes.io/instance={RELEASE}"
        bound = [
            *self.api.list("ClusterRoleBinding", labels=ours),
            *self.api.list("RoleBinding", NAMESPACE, labels=ours),
        ]
        roles = [binding["roleRef"] for binding in bound if binding["subjects"][0]["name"] == RELEASE]
        return [
            rule
            for role in roles
            for rule in self.api.get(role["kind"], role["name"], NAMESPACE if role["kind"] == "Role" else None)["rules"]
        ]

    def pods(self) -> list[Object]:
        """The operator's pods."""
        return self.api.list("Pod", NAMESPACE, labels=SELECTOR)

    def install(self, chart: Path = CHART, **values: Any) -> None:
        """Install the chart, or upgrade to this one with more values; wait until the operator's pods are ready, and no others there."""
        given = self.values | values
        helm(self.cluster, "upgrade", "--install", RELEASE, str(chart), "--values", "-", values=given)
        wait_until(lambda: self._is_settled(given["replicas"]), "the operator to be ready", explain=self.explain)

    def uninstall(self) -> None:
        """Uninstall the chart, and wait until the operator is gone: the CRDs stay, and what is in them."""
        helm(self.cluster, "uninstall", RELEASE, "--ignore-not-found", "--wait")
        wait_until(lambda: not self.pods(), "the operator to end", explain=self.explain)

    def leader(self) -> str:
        """The pod that holds the lease; empty while none of those that are there does."""
        lease = self.api.find("Lease", RELEASE, NAMESPACE) or {"spec": {}}
        holder = str(lease["spec"].get("holderIdentity") or "")
        names = [str(pod["metadata"]["name"]) for pod in self.pods()]
        return next((name for name in names if holder.startswith(f"{name}-")), "")

    def kill(self) -> None:
        """SIGKILL every replica, and wait until others took over."""
        killed = {pod["metadata"]["uid"] for pod in self.pods()}
        for pod in self.pods():
            self.api.kill_pod(pod["metadata"]["name"], NAMESPACE)
        wait_until(lambda: self._others_are_ready(killed), "a new operator", explain=self.explain)

    def freeze(self) -> None:
        """Throw the installation's switch, as the chart's notes say, and wait until the kubelet has brought it to the operator."""
        metadata = {"name": SWITCH, "namespace": NAMESPACE}
        self.api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"frozen": "true"}})
        wait_until(self._is_frozen, "the switch to reach the operator", patience_seconds=150, explain=self.explain)

    def thaw(self) -> None:
        """Let rollouts move again."""
        self.api.delete("ConfigMap", SWITCH, NAMESPACE)

    def _is_settled(self, replicas: int) -> bool:
        deployment = self.api.get("Deployment", RELEASE, NAMESPACE)
        status, pods = deployment.get("status", {}), self.pods()
        seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
        new = status.get("updatedReplicas") == status.get("readyReplicas") == replicas
        return seen and new and len(pods) == replicas and all(map(is_ready, pods))

    def _is_frozen(self) -> bool:
        logs = [self.api.try_logs(pod["metadata"]["name"], NAMESPACE, sinceSeconds="300") for pod in self.pods()]
        return any("the installation is frozen" in log for log in logs)

    def explain(self) -> str:
        """What the operator's pods say."""
        texts = []
        for pod in self.pods():
            texts.append(json.dumps(pod["status"])[:2000])
            if pod["status"].get("containerStatuses"):
                texts.append(self.api.try_logs(pod["metadata"]["name"], NAMESPACE, tailLines="40"))
        return "\n".join(texts)

    def _others_are_ready(self, killed: set[str]) -> bool:
        others = [pod for pod in self.pods() if pod["metadata"]["uid"] not in killed]
        return bool(others) and all(is_ready(pod) for pod in others)


def is_ready(pod: Object) -> bool:
    """Whether a pod's Ready condition is True."""
    conditions = pod["status"].get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def helm(cluster: Cluster, *arguments: str, values: dict[str, Any] | None = None) -> str:
    """Run helm against the cluster; returns what it says."""
    done = subprocess.run(
        [str(binary("helm")), "--kubeconfig", str(cluster.kubeconfig), "--namespace", NAMESPACE, *arguments],
        input=yaml.safe_dump(values or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"helm {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def named(image: str) -> dict[str, str]:
    """An image in the chart's words."""
    repository, tag = image.rsplit(":", 1)
    return {"repository": repository, "tag": tag}


def values_for(cluster: Cluster, releases: Releases, prometheus: PrometheusServer) -> dict[str, Any]:
    """The chart's values on the cluster under test."""
    return {
        "image": named(cluster.operator_image),
        "worker": {"image": named(cluster.worker_image)},
        # One replica that is followed quickly, so that a killed one costs the test seconds.
        "replicas": 1,
        "leaseSeconds": 4,
        # Jobs of the other stories name their own.
        "storage": {
            "uri": "s3://dram/installation",
            "endpoint": releases.s3.endpoint,
            "region": releases.s3.region,
            "pathStyle": True,
            "secretRef": {"name": CREDENTIALS},
        },
        **releases.values(prometheus),
    }


@contextmanager
def installation(cluster: Cluster, releases: Releases, prometheus: PrometheusServer) -> Iterator[Installation]:
    """Install the chart; uninstall it, CRDs included, at the end."""
    cluster.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": RESTRICTED}})
    for secret in releases.secrets(NAMESPACE):
        cluster.api.apply(secret)
    installed = Installation(cluster, values_for(cluster, releases, prometheus))
    try:
        installed.install()
        yield installed
    finally:
        installed.uninstall()
        for kind in ("distillationjobs", "edgerollouts"):
            cluster.api.delete("CustomResourceDefinition", f"{kind}.dram.dev")
        cluster.api.delete("Namespace", NAMESPACE)
