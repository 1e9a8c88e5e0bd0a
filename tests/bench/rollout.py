"""A thousand EdgeRollouts that have nothing to do, on a real API server, with a real repository and a real Prometheus."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from os import environ
from pathlib import Path
from typing import Any

import psutil
import yaml

from dram_agent.document import Artifact, Release, Requirements
from dram_operator.adapters.releases.bucket import Bucket, BucketSettings
from dram_operator.adapters.releases.ceremony import Ceremony
from dram_operator.adapters.releases.keys import KeyFolder
from dram_operator.adapters.releases.repository import ReleaseRepository
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.core.rollout.document import Delivery, channel_document
from tests.bench.operator import ADMIN_RULES, CLIENTS, ROOT, is_ready, wait_quiet, write_count
from tests.bench.results import Row
from tests.builders import a_rollout
from tests.cluster.api import Api, Object, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.cluster.processes import free_ports
from tests.cluster.prometheus import PrometheusServer
from tests.cluster.s3 import S3Server

ROLLOUTS = 1000
NAMESPACE = "bench"
OPERATOR = "dram"
IDLE_SECONDS = 60.0
DIGEST = "ab" * 32
ARTIFACT = {"uri": "s3://models/support-bot", "sha256": DIGEST}
SINCE = "2031-05-01T12:00:00Z"
BUCKET = "releases"


@dataclass(frozen=True)
class Surroundings:
    """What the operator is given."""

    plane: ControlPlane
    s3: S3Server
    prometheus: PrometheusServer
    keys: Path

    def settings(self, kubeconfig: Path, port: int) -> dict[str, str]:
        """The operator's environment."""
        found = {
            "KUBECONFIG": kubeconfig,
            "METRICS_PORT": port,
            "LEASE_NAMESPACE": "default",
            "IMAGE": "worker:1",
            "LOG_LEVEL": "WARNING",
            "RELEASES_URI": f"s3://{BUCKET}",
            "RELEASES_ENDPOINT": self.s3.endpoint,
            "RELEASES_ROOT": self.keys / "root.json",
            "RELEASES_OPERATOR_KEY": self.keys / "operator.pem",
            "PROMETHEUS": f'[{{"name":"default","url":"{self.prometheus.url}"}}]',
        }
        credentials = {f"DRAM_RELEASES_{name}": text for name, text in self.s3.owner.environment().items()}
        return {f"DRAM_{name}": str(value) for name, value in found.items()} | credentials


def rows() -> list[Row]:
    """CPU and writes of the operator while nothing happens."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ControlPlane() as plane,
        S3Server() as s3,
        PrometheusServer() as prometheus,
    ):
        around = Surroundings(plane, s3, prometheus, Path(folder) / "keys")
        names = (f"channel-{number:04}" for number in range(ROLLOUTS))
        prepare(around, [manifest(name) | {"status": status()} for name in names])
        return measure(around)


def measure(around: Surroundings) -> list[Row]:
    """Let the operator take everything up, then look at a minute of idleness."""
    kubeconfig = around.plane.kubeconfig_for(OPERATOR, ADMIN_RULES)
    with process(around, kubeconfig) as running:
        api = around.plane.api()
        wait_until(partial(are_taken_up, api), "every rollout to be looked at", patience_seconds=600)
        wait_quiet(around.plane, OPERATOR)
        writes, before = write_count(around.plane, OPERATOR), cpu_seconds(running)
        time.sleep(IDLE_SECONDS)
        used = cpu_seconds(running) - before
        written = write_count(around.plane, OPERATOR) - writes
        rss = running.memory_info().rss
    note = f"lower is better; {ROLLOUTS} rollouts that are stable"
    return [
        Row("rollout.idle_cpu_seconds_per_minute", used * 60 / IDLE_SECONDS, "s", note=note),
        Row("rollout.idle_writes_per_minute", written * 60 / IDLE_SECONDS, "", note=note),
        Row("rollout.idle_rss_bytes", rss, "B", note=note),
    ]


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time."""
    times = process.cpu_times()
    return float(times.user + times.system)


def prepare(around: Surroundings, rollouts: Sequence[Object]) -> None:
    """The objects with their status, and a repository in which the document of each is signed."""
    environ.update(around.s3.owner.environment())
    around.s3.bucket(BUCKET)
    bucket = Bucket(BucketSettings(f"s3://{BUCKET}", around.s3.endpoint))
    folder = KeyFolder(around.keys)
    Ceremony(bucket, folder, now).init(root_keys=1, threshold=1)
    api = around.plane.api()
    api.apply(yaml.safe_load((ROOT / "crds" / "dram.dev_edgerollouts.yaml").read_text()))
    api.apply(yaml.safe_load((ROOT / "crds" / "dram.dev_distillationjobs.yaml").read_text()))
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    wait_until(lambda: is_served(api), "the resource to be served")
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(partial(create, around.plane), [rollouts[first::CLIENTS] for first in range(CLIENTS)]))
    documents = {f"channels/{NAMESPACE}/{one['metadata']['name']}.json": signed(one) for one in rollouts}
    root = (around.keys / "root.json").read_bytes()
    ReleaseRepository(bucket, root, folder.key("operator"), now).publish(documents)


def now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def manifest(name: str) -> Object:
    """A rollout whose artifact is stable."""
    made = a_rollout().named(name).having("metadata.namespace", NAMESPACE).having("spec.artifact", ARTIFACT)
    return made.manifest()


def status() -> dict[str, Any]:
    """What the operator left when the artifact became stable."""
    requires = Requirements(format="gguf", memory_bytes=1, agent_version="0")
    release = Release(digest=DIGEST, artifacts=(Artifact(path=f"artifacts/{DIGEST}/manifest.json", requires=requires),))
    told = release.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"attempt": 1, "stable": {"name": DIGEST[:12], "release": told, "source": ARTIFACT, "since": SINCE}}


def signed(rollout: Object) -> bytes:
    """The channel document that belongs to a status."""
    return channel_document(EdgeRollout.from_object(rollout), Delivery()).encode()


def create(plane: ControlPlane, rollouts: Sequence[Object]) -> None:
    """Create objects with their status."""
    api = plane.api()
    for one in rollouts:
        api.create({name: value for name, value in one.items() if name != "status"})
        api.patch("EdgeRollout", one["metadata"]["name"], NAMESPACE, {"status": one["status"]}, subresource="status")


def is_served(api: Api) -> bool:
    """Whether the API server lists the resource."""
    found = api.get("CustomResourceDefinition", "edgerollouts.dram.dev")["status"].get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in found)


def are_taken_up(api: Api) -> bool:
    """Whether every rollout is Ready."""
    return all(
        any(c["type"] == "Ready" and c["status"] == "True" for c in one["status"].get("conditions", ()))
        for one in api.list("EdgeRollout", NAMESPACE)
    )


@contextlib.contextmanager
def process(around: Surroundings, kubeconfig: Path) -> Iterator[psutil.Process]:
    """The operator as a process of its own."""
    (port,) = free_ports(1)
    command = [sys.executable, "-c", "import sys; from dram_operator.app import main; sys.exit(main())"]
    child = subprocess.Popen(command, env=environ | around.settings(kubeconfig, port))
    try:
        wait_until(lambda: is_ready(port), "the operator to be ready")
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait(60)
