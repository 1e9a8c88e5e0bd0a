"""What a device pushes, as a real Prometheus has it: the very names and labels that queries ask for."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from urllib3.exceptions import HTTPError

from dram_agent.errors import Cause
from dram_agent.otlp import CONTENT_TYPE, export
from dram_agent.telemetry import FallbackCause, Identity, Outcome, ServedBy, Telemetry
from tests.cluster.binaries import binary
from tests.cluster.processes import Processes, free_ports, fresh_folder

NOW = 2_000_000_000.0
RELEASE = "a" * 64


@pytest.fixture(scope="module")
def prometheus() -> Iterator[str]:
    """One that takes OTLP."""
    folder, port = fresh_folder("otlp"), free_ports(1)[0]
    (folder / "prometheus.json").write_text(json.dumps({"storage": {"tsdb": {"out_of_order_time_window": "100y"}}}))
    processes = Processes(folder)
    url = f"http://127.0.0.1:{port}"
    command = [str(binary("prometheus")), "--config.file=prometheus.json", "--storage.tsdb.path=data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--web.enable-otlp-receiver"]
    try:
        processes.start("prometheus", command)
        processes.wait_ready("prometheus", lambda: _is_ready(url))
        yield url
    finally:
        processes.stop_all()
        shutil.rmtree(folder, ignore_errors=True)


def _is_ready(url: str) -> bool:
    try:
        return urllib3.request("GET", f"{url}/-/ready", retries=False, timeout=2).status == 200
    except HTTPError:
        return False


def ask(url: str, query: str, at: float) -> list[tuple[dict[str, str], float]]:
    answer: Any = urllib3.request("GET", f"{url}/api/v1/query", fields={"query": query, "time": str(at)}).json()
    return [(row["metric"], float(row["value"][1])) for row in answer["data"]["result"]]


def test_series_arrive_under_the_names_that_queries_use(prometheus: str) -> None:
    telemetry = Telemetry(Identity("tv/bot", "device-1", "tv", "1.2.3"))
    telemetry.use(RELEASE)
    telemetry.assign(3, treated=True)

    def push(at: float) -> None:
        body = export(telemetry.registry, {"service.name": "dram-agent"}, at, NOW - 60)
        headers = {"Content-Type": CONTENT_TYPE}
        answer = urllib3.request("POST", f"{prometheus}/api/v1/otlp/v1/metrics", body=body, headers=headers)
        assert answer.status == 200, answer.data

    push(NOW)
    for _ in range(30):
        telemetry.count_request(Outcome.OK, ServedBy.DEVICE, 0.3)
    telemetry.count_request(Outcome.ERROR, ServedBy.DEVICE, 1)
    telemetry.count_fallback(FallbackCause.TIMEOUT)
    telemetry.count_refusal(Cause.TAMPERED)
    telemetry.show_health(healthy=True, memory_bytes=1234)
    telemetry.show_golden(0.9)
    push(NOW + 60)

    at, own = NOW + 60, 'channel="tv/bot",device="device-1"'
    wanted: dict[str, float] = {
        f'increase(dram_device_requests_total{{{own},served_by="device",outcome="ok"}}[1m])': 30,
        f"sum(increase(dram_device_requests_total{{{own}}}[1m]))": 31,
        f'increase(dram_device_fallbacks_total{{{own},cause="timeout",release="{RELEASE}"}}[1m])': 1,
        f'dram_device_refused_metadata_total{{{own},cause="tampered"}}': 1,
        f'dram_device_info{{{own},attempt="3",arm="treated",release="{RELEASE}"}}': 1,
        f"dram_device_memory_bytes{{{own}}}": 1234,
        f"dram_device_golden_pass_ratio{{{own}}}": 0.9,
        f'dram_device_healthy{{{own},release="{RELEASE}"}}': 1,
        f'dram_device_request_seconds_count{{{own},served_by="device",release="{RELEASE}"}}': 30,
        f'dram_device_request_seconds_bucket{{{own},served_by="device",release="{RELEASE}",le="0.35"}}': 30,
        f'dram_device_request_seconds_bucket{{{own},served_by="device",release="{RELEASE}",le="0.2"}}': 0,
    }
    got = {query: [value for _, value in ask(prometheus, query, at)] for query in wanted}
    assert got == {query: [pytest.approx(value)] for query, value in wanted.items()}
