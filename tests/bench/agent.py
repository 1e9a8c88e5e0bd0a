"""The agent at rest: memory and processor time of its process, without a model and with a small one that nobody asks."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import urllib3
import yaml

from dram_agent.identity import new_id
from dram_operator.adapters.releases.bucket import BucketSettings
from dram_operator.adapters.releases.keys import KeyFolder
from tests.agent.box import CHANNEL, Fleet
from tests.agent.memory import MemoryBucket
from tests.agent.site import Site
from tests.bench.results import Row
from tests.cluster.processes import free_ports
from tests.models import write_model
from tests.operator.adapters.releases.installation import Clock, Installation
from tests.workers.export.exporting import exported

SETTLE_SECONDS = 15.0
SPAN_SECONDS = 60.0
LOWER = "lower is better"


@dataclass(frozen=True)
class Rest:
    """A process that has nothing to do."""

    rss_bytes: int
    cpu_seconds: float


def rows() -> list[Row]:
    """Two agents, one after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        teacher = write_model(folder / "teacher")
        model = exported(folder, teacher, "F16")
        (bare,) = measure(folder / "bare", None)
        agent, runtime = measure(folder / "serving", model.read_bytes())
    span = f"over {SPAN_SECONDS:g} s, polling every 300 s"
    kind = "a model of a megabyte loaded"
    return [
        Row("agent.idle_rss_bytes", bare.rss_bytes, "B", note=f"{LOWER}; no local model"),
        Row("agent.idle_cpu_seconds_per_minute", bare.cpu_seconds, "s", note=f"{LOWER}; no local model, {span}"),
        Row("agent.serving_rss_bytes", agent.rss_bytes, "B", note=f"{LOWER}; the agent's own process, {kind}"),
        Row(
            "agent.serving_cpu_seconds_per_minute",
            agent.cpu_seconds,
            "s",
            note=f"{LOWER}; the same, no request, {span}",
        ),
        Row("agent.runtime_rss_bytes", runtime.rss_bytes, "B", note=f"{LOWER}; the model's process, {kind}"),
        Row(
            "agent.runtime_cpu_seconds_per_minute",
            runtime.cpu_seconds,
            "s",
            note=f"{LOWER}; the same, no request, {span}",
        ),
    ]


def measure(folder: Path, model: bytes | None) -> tuple[Rest, ...]:
    """The agent at rest, and the model's process where it has one."""
    folder.mkdir()
    with Site() as site, running(folder, site, model) as process:
        time.sleep(SETTLE_SECONDS)
        processes = [process, *process.children()]
        before = [cpu_seconds(each) for each in processes]
        time.sleep(SPAN_SECONDS)
        return tuple(
            Rest(each.memory_info().rss, (cpu_seconds(each) - spent) * 60 / SPAN_SECONDS)
            for each, spent in zip(processes, before, strict=True)
        )


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time so far, of user and kernel."""
    times = process.cpu_times()
    return float(times.user + times.system)


@contextlib.contextmanager
def running(folder: Path, site: Site, model: bytes | None) -> Iterator[psutil.Process]:
    """An agent's process that has settled on what its channel says."""
    settings = BucketSettings("s3://memory")
    installation = Installation(settings, KeyFolder(folder / "keys"), Clock(datetime.now(UTC)), bucket=MemoryBucket({}))
    installation.ceremony().init(root_keys=1, threshold=1)
    fleet = Fleet(installation, site)
    fleet.publish(fleet.release(model=model) if model else None)
    (folder / "root.json").write_bytes(installation.first_root)
    (folder / "device-id").write_text(new_id())
    api, metrics = free_ports(2)
    config: dict[str, Any] = {
        "channel": CHANNEL,
        "repository": site.url,
        "root": str(folder / "root.json"),
        "state": str(folder / "state"),
        "deviceIdFile": str(folder / "device-id"),
        "listen": f"127.0.0.1:{api}",
        "metricsListen": f"127.0.0.1:{metrics}",
        "contextTokens": 512,
        "threads": 1,
    }
    (folder / "agent.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "dram_operator.cli", "agent", "--config", str(folder / "agent.yaml")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as child:
        try:
            wait_for(f"http://127.0.0.1:{api}/health", 200 if model else 503)
            yield psutil.Process(child.pid)
        finally:
            child.terminate()


def wait_for(url: str, status: int) -> None:
    """Wait until the endpoint answers so."""
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            if urllib3.request("GET", url, retries=False, timeout=5).status == status:
                return
        if time.monotonic() > deadline:
            raise TimeoutError(url)
        time.sleep(0.1)
