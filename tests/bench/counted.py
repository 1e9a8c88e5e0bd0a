"""One rollout at work in the real operator: 10 and 10,000 devices that a real Prometheus lists, a million that it has only counts of.

The series are written as fast as devices would tell them; those of a million are what 50 regions with the recording rules would send.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import urllib3

from dram_agent.buckets import LATENCY_BUCKETS
from dram_operator.core.rollout.recording import (
    AGES,
    BUCKETS,
    COUNTS,
    EVALUATION_SECONDS,
    GOLDEN_COUNT,
    GOLDEN_SUM,
    KNOWN,
    MEMORY,
    REQUESTS,
    SOAKS,
)
from dram_operator.core.times import stamp
from tests.bench.operator import ADMIN_RULES, ROOT
from tests.bench.results import Row
from tests.bench.rollout import (
    ARTIFACT,
    DIGEST,
    NAMESPACE,
    OPERATOR,
    Surroundings,
    cpu_seconds,
    manifest,
    prepare,
    process,
    status,
)
from tests.cluster.api import Api, Object, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.cluster.prometheus import PrometheusServer
from tests.cluster.remote_write import Point, write
from tests.cluster.s3 import S3Server

FLEETS = {"10": 10, "10k": 10_000, "1m": 1_000_000}
NAME = "fleet"
CHANNEL = f"{NAMESPACE}/{NAME}"
OLD = "cd" * 32
REGIONS, RINGS = 50, ("canary", "early", "late", "kiosk")
RULES = ROOT / "charts" / "dram" / "files" / "recording-rules.yaml"
INTERVAL_SECONDS = 20
TELLING_SECONDS = 20.0
LOOKS = 4
ARM = {"attempt": "2", "arm": "treated", "release": DIGEST}


def rows() -> list[Row]:
    """Memory, CPU a look and the status, by the size of the fleet."""
    return [row for name, devices in FLEETS.items() for row in _measured(name, devices)]


def _measured(name: str, devices: int) -> list[Row]:
    with (
        tempfile.TemporaryDirectory() as folder,
        ControlPlane() as plane,
        S3Server() as s3,
        PrometheusServer(receives=True, config={"rule_files": [str(RULES)]}) as prometheus,
    ):
        around = Surroundings(plane, s3, prometheus, Path(folder) / "keys")
        tell = partial(told_by_each, devices) if devices <= FLEETS["10k"] else partial(told_in_counts, devices)
        with telling(prometheus, tell):
            prepare(around, [at_work()])
            return measure(around, name, devices)


def measure(around: Surroundings, name: str, devices: int) -> list[Row]:
    """Let the operator see all devices, then count what some looks cost it."""
    kubeconfig = around.plane.kubeconfig_for(OPERATOR, ADMIN_RULES)
    with process(around, kubeconfig) as running:
        api = around.plane.api()
        wait_until(partial(are_well, api, devices), "every device to be well", patience_seconds=300)
        time.sleep(INTERVAL_SECONDS)
        before = cpu_seconds(running)
        time.sleep(LOOKS * INTERVAL_SECONDS)
        used, rss = cpu_seconds(running) - before, running.memory_info().rss
        size = len(json.dumps(api.get("EdgeRollout", NAME, NAMESPACE)["status"], separators=(",", ":")))
    how = "counted" if devices > FLEETS["10k"] else "listed"
    note = f"lower is better; {devices:,} devices, {how}; one rollout at work, two presets"
    found = [
        Row(f"fleet.operator_rss_bytes.{name}", rss, "B", note=note),
        Row(
            f"fleet.look_cpu_seconds.{name}",
            used / LOOKS,
            "s",
            note=f"{note}; all that the operator does in a look's time",
        ),
        Row(f"fleet.status_bytes.{name}", size, "B", note=f"{note}; at most {64 << 10}"),
    ]
    if how == "listed":
        told = (
            f"lower is better; what an evaluation of the recording rules takes Prometheus, every {EVALUATION_SECONDS} s"
        )
        found.append(Row(f"fleet.recording_seconds.{name}", recording_seconds(around.prometheus), "s", note=told))
    return found


def recording_seconds(server: PrometheusServer) -> float:
    """How long the latest evaluation of the recording rules took."""
    lines = urllib3.request("GET", f"{server.url}/metrics").data.decode().splitlines()
    [told] = [one for one in lines if one.startswith("prometheus_rule_group_last_duration_seconds{")]
    return float(told.rsplit(maxsplit=1)[-1])


def at_work() -> Object:
    """A rollout whose only step, everybody, is being watched."""
    now = stamp(datetime.now(UTC))
    told = status()["stable"]["release"]
    stable = {"name": "old", "release": {**told, "digest": OLD}, "source": {**ARTIFACT, "sha256": OLD}, "since": now}
    candidate = {"name": "new", "release": told, "source": ARTIFACT, "since": now}
    step = {"index": 0, "shown": "1/1", "state": "Updating", "startedAt": now, "percent": 100}
    found = manifest(NAME)
    found["spec"] |= {
        "strategy": {"steps": [{"cohort": {"percent": "100%"}, "bakeSeconds": 86_400}]},
        "analysis": {
            "intervalSeconds": INTERVAL_SECONDS,
            "metrics": [{"name": "p95", "preset": "LatencyP95", "max": "2"}],
        },
    }
    reach = {"cutoffs": [{"cutoff": "f" * 16}]}
    return found | {"status": {"attempt": 2, "stable": stable, "candidate": candidate, "step": step, "reach": reach}}


def are_well(api: Api, devices: int) -> bool:
    """Whether status says that all of them are."""
    told = api.get("EdgeRollout", NAME, NAMESPACE)["status"].get("step", {}).get("devices", {})
    return (told.get("known"), told.get("healthy")) == (devices, devices)


@contextmanager
def telling(server: PrometheusServer, tell: Callable[[float], Iterator[Point]]) -> Iterator[None]:
    """Write what is told, again and again, in the background."""
    ended, host, begun = Event(), server.url.removeprefix("http://"), time.time()

    def go_on() -> None:
        while not ended.is_set():
            write(host, time.time(), tell(time.time() - begun))
            ended.wait(TELLING_SECONDS)

    thread = Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _series(name: str, **labels: object) -> dict[str, str]:
    return {"__name__": name, "channel": CHANNEL, **{label: str(value) for label, value in labels.items()}}


def told_by_each(devices: int, age: float) -> Iterator[Point]:
    """The series of each device that a look reads."""
    for number in range(devices):
        own: dict[str, Any] = {"device": f"{number:032x}", "release": DIGEST}
        info = _series("dram_device_info", **own, attempt=2, arm="treated", label_ring=RINGS[number % len(RINGS)])
        yield info, 1
        yield _series("dram_device_healthy_seconds", **own), 3600 + age
        yield _series("dram_device_release_seconds", **own), age
        yield _series("dram_device_gave_up", **own), 0
        for served_by in ("device", "cloud"):
            count = 2 * age if served_by == "device" else 0
            yield _series("dram_device_requests_total", **own, outcome="ok", served_by=served_by), count
        for le in (0.5, "+Inf"):
            yield _series("dram_device_request_seconds_bucket", **own, served_by="device", le=le), 2 * age


def told_in_counts(devices: int, age: float) -> Iterator[Point]:
    """What the recording rules of all regions say of so many devices that are well."""
    each = devices / REGIONS
    for region in range(REGIONS):
        for ring in RINGS:
            for span in AGES:
                yield _series(KNOWN, region=region, label_ring=ring, within=span), each / len(RINGS)
        arm: dict[str, Any] = {"region": region, **ARM}
        for state in ("reporting", "healthy"):
            for span in SOAKS:
                yield _series(COUNTS, **arm, state=state, within=span), each
        for outcome, served_by in (("ok", "device"), ("error", "device"), ("ok", "cloud")):
            rate = 2 * each if (outcome, served_by) == ("ok", "device") else 0
            yield _series(REQUESTS, **arm, outcome=outcome, served_by=served_by), rate
        for le in (*LATENCY_BUCKETS, "+Inf"):
            rate = 2 * each if le == "+Inf" or float(le) >= 0.5 else 0
            yield _series(BUCKETS, **arm, served_by="device", le=le), rate
        yield _series(GOLDEN_SUM, **arm), each
        yield _series(GOLDEN_COUNT, **arm), each
        yield _series(MEMORY, **arm), 1e9
