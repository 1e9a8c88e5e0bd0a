"""The operator against a plain kopf operator: 1,000 DistillationJobs on a real API server."""

import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.error import URLError

import psutil
import yaml

from dram_operator.core.worker_pod import STAGE_LABEL
from tests.bench.results import Row
from tests.builders import a_job
from tests.cluster import audit
from tests.cluster.api import Api, path_of, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.cluster.processes import free_ports
from tests.integration.operator.jobs import wait_for
from tests.integration.operator.kubelet import WORKS, Ending, Kubelet

ROOT = Path(__file__).parents[2]
JOBS = 1000
CLIENTS = 4
"""Threads that create the objects: the load of a user's script, on the same two cores."""
QUIET_SECONDS = 5.0
"""Without a write for so long, the operator has nothing left to do."""
STAGE_SECONDS = 4.0
OURS, PEER = "dram", "plain"
PEER_NAME = "plain kopf on.create/on.update"
ADMIN_RULES = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
CRITICAL_PATH = ("resolve", "data", "train", "export-gguf-q8-0", "evaluate-gguf-q8-0", "publish")
"""The longest chain of stages of a job with one variant; evaluate of the student and of the file, bench and teacher run beside it."""


@dataclass(frozen=True)
class Figures:
    """What one operator did."""

    seconds: float
    writes: int
    writes_after_restart: int
    rss_bytes: int
    cpu_seconds: float


def rows() -> list[Row]:
    """Run both, one after the other, each on a fresh API server."""
    ours, peer = measure(OURS), measure(PEER)
    lower = "lower is better"
    return [
        Row(
            "operator.seconds_to_every_first_child",
            ours.seconds,
            "s",
            PEER_NAME,
            peer.seconds,
            f"{lower}; {JOBS} jobs, creation of the objects included",
        ),
        Row(
            "operator.objects_per_second",
            JOBS / ours.seconds,
            "1/s",
            PEER_NAME,
            JOBS / peer.seconds,
            "higher is better",
        ),
        Row(
            "operator.writes_per_object",
            ours.writes / JOBS,
            "",
            PEER_NAME,
            peer.writes / JOBS,
            f"{lower}; child, status and events",
        ),
        Row(
            "operator.writes_after_restart",
            ours.writes_after_restart,
            "",
            PEER_NAME,
            peer.writes_after_restart,
            f"{lower}; {JOBS} jobs",
        ),
        Row("operator.cpu_seconds", ours.cpu_seconds, "s", PEER_NAME, peer.cpu_seconds, f"{lower}; of the process"),
        Row("operator.rss_bytes", ours.rss_bytes, "B", PEER_NAME, peer.rss_bytes, f"{lower}; after {JOBS} jobs"),
        *overhead(),
    ]


def measure(operator: str) -> Figures:
    """One operator: all jobs at once, then a restart."""
    with ControlPlane() as plane:
        namespace = prepare(plane)
        kubeconfig = plane.kubeconfig_for(operator, ADMIN_RULES)
        with process(operator, kubeconfig) as running:
            started = time.monotonic()
            create_jobs(plane, namespace)
            wait_for_children(plane.api(), namespace)
            seconds = time.monotonic() - started
            wait_quiet(plane, operator)
            rss, times = running.memory_info().rss, running.cpu_times()
        writes = write_count(plane, operator)
        with process(operator, kubeconfig):
            wait_quiet(plane, operator)
        return Figures(seconds, writes, write_count(plane, operator) - writes, rss, times.user + times.system)


def overhead() -> list[Row]:
    """A job whose pods work for a known time each, against its longest chain of Jobs created by hand, each when the last is complete."""
    first_seen: dict[str, float] = {}

    def script(stage: str, attempt: int) -> Ending | None:
        since = first_seen.setdefault(stage, time.monotonic())
        return WORKS if time.monotonic() - since >= STAGE_SECONDS else None

    with ControlPlane(controllers=True) as plane, Kubelet(plane.api(), script):
        api, namespace = plane.api(), prepare(plane)
        wait_until(lambda: api.find("ServiceAccount", "default", namespace), "the service account")
        with process(OURS, plane.kubeconfig):
            started = time.monotonic()
            api.create(a_job().named("timed", namespace).manifest())
            wait_for(api, namespace, "timed", "Succeeded", "True")
            seconds = time.monotonic() - started
        first_seen.clear()
        by_hand = run_by_hand(api, namespace)
    note = f"lower is better; {len(CRITICAL_PATH)} stages in a row, each pod at work for {STAGE_SECONDS:g} s"
    return [Row("operator.job_seconds", seconds, "s", "the same Jobs by hand", by_hand, note)]


def run_by_hand(api: Api, namespace: str) -> float:
    """Create the Jobs that the operator made once more, one when the other is complete; returns the seconds."""
    made = {job["metadata"]["labels"][STAGE_LABEL]: job for job in api.list("Job", namespace)}
    started = time.monotonic()
    for stage in CRITICAL_PATH:
        job = made[stage]
        again = f"{job['metadata']['name']}-again"
        template = job["spec"]["template"]
        labels = {name: value for name, value in template["metadata"]["labels"].items() if name.startswith("dram.dev/")}
        pods = {**template, "metadata": {**template["metadata"], "labels": labels}}
        spec = {**job["spec"], "selector": None, "template": pods}
        metadata = {"name": again, "namespace": namespace}
        api.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
        wait_until(partial(is_complete, api, again, namespace), f"{again} to complete")
    return time.monotonic() - started


def is_complete(api: Api, name: str, namespace: str) -> bool:
    """Whether a Job has done its work."""
    conditions = api.get("Job", name, namespace).get("status", {}).get("conditions") or ()
    return any(c["type"] == "Complete" and c["status"] == "True" for c in conditions)


def prepare(plane: ControlPlane) -> str:
    """Install the resource and make a namespace."""
    api = plane.api()
    api.apply(yaml.safe_load((ROOT / "crds" / "dram.dev_distillationjobs.yaml").read_text()))
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}})
    wait_until(lambda: is_served(api), "the resource to be served")
    return "bench"


def is_served(api: Api) -> bool:
    """Whether the API server lists the resource."""
    found = api.get("CustomResourceDefinition", "distillationjobs.dram.dev")["status"].get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in found)


def create_jobs(plane: ControlPlane, namespace: str) -> None:
    """Create the objects as fast as a few clients can."""

    def create(numbers: range) -> None:
        api = plane.api()
        for number in numbers:
            api.create(a_job().named(f"job-{number:04}", namespace).manifest())

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(create, [range(first, JOBS, CLIENTS) for first in range(CLIENTS)]))


def wait_for_children(api: Api, namespace: str) -> None:
    """Look twice a second: each look costs the API server time that it owes the operator."""
    while count(api, "Job", namespace) < JOBS:
        time.sleep(0.5)


def count(api: Api, kind: str, namespace: str) -> int:
    """Objects of a kind, without reading them."""
    import json

    page = json.loads(api.request("GET", path_of(kind, namespace), query={"limit": "1"}))
    return len(page["items"]) + int(page["metadata"].get("remainingItemCount", 0))


def write_count(plane: ControlPlane, operator: str) -> int:
    """Writes of an operator in the audit log; its lease left out."""
    requests = audit.requests(plane.audit_log, operator)
    return sum(
        number
        for resource, number in Counter(r["objectRef"]["resource"] for r in requests).items()
        if resource != "leases"
    )


def wait_quiet(plane: ControlPlane, operator: str) -> None:
    """Wait until the operator has stopped writing."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS:
        time.sleep(0.5)
        now = write_count(plane, operator)
        if now != last:
            last, since = now, time.monotonic()


@contextmanager
def process(operator: str, kubeconfig: Path) -> Iterator[psutil.Process]:
    """An operator as a process of its own, ready when the block begins."""
    (port,) = free_ports(1)
    ours = [sys.executable, "-c", "import sys; from dram_operator.app import main; sys.exit(main())"]
    plain = [sys.executable, "-m", "kopf", "run", "--standalone", "--all-namespaces", "--quiet"]
    plain += [f"--liveness=http://127.0.0.1:{port}/readyz", "-m", "tests.bench.plain_kopf"]
    settings = {
        "KUBECONFIG": str(kubeconfig),
        "DRAM_KUBECONFIG": str(kubeconfig),
        "DRAM_METRICS_PORT": str(port),
        "DRAM_LEASE_NAMESPACE": "default",
        "DRAM_IMAGE": "worker:1",
        "DRAM_LOG_LEVEL": "WARNING",
        "PYTHONPATH": str(ROOT),
    }
    command = ours if operator == OURS else plain
    child = subprocess.Popen(
        command, env=os.environ | settings, stderr=None if operator == OURS else subprocess.DEVNULL
    )
    try:
        wait_until(lambda: is_ready(port), f"{operator} to be ready")
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait(60)


def is_ready(port: int) -> bool:
    """Whether the readiness probe passes."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return int(answer.status) == 200
    except (URLError, OSError):
        return False
