"""A real Prometheus that scrapes the installation of `world`."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode

import pytest
from prometheus_client import CollectorRegistry

from tests.cluster.api import wait_until
from tests.cluster.prometheus import PrometheusServer
from tests.monitoring.world import Device, Gateway, Operator, served


@dataclass(frozen=True)
class Asked:
    """What a Prometheus answers, all of it as of one moment: a machine that stands still meanwhile changes nothing."""

    address: str
    at: float = 0.0
    """Seconds since the epoch; 0 is now."""

    def get(self, path: str, **form: str) -> Any:
        """The data of an answer."""
        moment = {"time": str(self.at)} if self.at else {}
        with closing(HTTPConnection(self.address, timeout=60)) as connection:
            connection.request("GET", f"/api/v1/{path}?{urlencode(form | moment)}")
            answer = connection.getresponse()
            body = answer.read()
        assert answer.status == 200, body
        return json.loads(body)["data"]

    def values(self, query: str) -> list[float]:
        """The values of an instant query."""
        found = self.get("query", query=query)
        results = [found["result"]] if found["resultType"] == "scalar" else [one["value"] for one in found["result"]]
        return [float(value) for _, value in results]

    def when_all_are_scraped(self, targets: int) -> float | None:
        """A moment at which every target had been scraped three times; None while there is none."""
        found = self.get("query", query="count(count_over_time(up[1h]) >= 3 and up == 1)")["result"]
        return next((float(moment) for moment, count in (one["value"] for one in found) if int(count) == targets), None)


@pytest.fixture(scope="session")
def prometheus() -> Iterator[Asked]:
    """It has scraped every target at least three times."""
    targets: dict[str, Callable[[], CollectorRegistry]] = {"/operator": Operator().work, "/gateway": Gateway().work}
    targets |= {f"/device/{number}": Device(number).work for number in range(4)}
    with served(targets) as address:
        jobs = [
            {
                "job_name": path.strip("/").replace("/", "-"),
                "metrics_path": path,
                "honor_labels": True,
                "static_configs": [{"targets": [address]}],
            }
            for path in targets
        ]
        every = {"scrape_interval": "500ms", "scrape_timeout": "500ms"}
        with PrometheusServer(config={"global": every, "scrape_configs": jobs}) as server:
            asked = Asked(server.url.removeprefix("http://"))
            at = wait_until(lambda: asked.when_all_are_scraped(len(targets)), "three scrapes of every target")
            yield replace(asked, at=at)
