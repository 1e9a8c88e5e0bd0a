"""A real Prometheus that takes OTLP, and may scrape a device."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from tests.cluster.binaries import binary
from tests.cluster.processes import Processes, free_ports, fresh_folder

Series = list[tuple[dict[str, str], float]]


@contextmanager
def receiver(target: str | None = None) -> Iterator[str]:
    """Its address; `target` is scraped every second."""
    folder, port = fresh_folder("otlp"), free_ports(1)[0]
    scrapes = [{"job_name": "devices", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}]
    config = {"storage": {"tsdb": {"out_of_order_time_window": "100y"}}, "scrape_configs": scrapes if target else []}
    (folder / "prometheus.json").write_text(json.dumps(config))
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


def ask(url: str, query: str, at: float | None = None) -> Series:
    """An instant query, as of now by default."""
    fields = {"query": query, **({} if at is None else {"time": str(at)})}
    answer: Any = urllib3.request("GET", f"{url}/api/v1/query", fields=fields).json()
    return [(row["metric"], float(row["value"][1])) for row in answer["data"]["result"]]
