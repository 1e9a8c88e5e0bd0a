"""The tutorial's second half, typed as it stands there, by bash, kubectl and helm.

The API server, its controllers, the chart, the operator's rights, S3, Prometheus, signatures and devices' protocol are real. There is no node: what
the pods of operator and release name is run as processes.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.controlplane import ControlPlane
from tests.cluster.processes import free_ports
from tests.cluster.prometheus import PrometheusServer
from tests.cluster.s3 import S3Server
from tests.integration.operator.release_pods import ReleasePods
from tests.monitoring.boards import queries, was_shown
from tests.tutorial.operator_pod import OperatorPod
from tests.tutorial.session import scraping, set_desk, settings, tells_the_story, typed

ABSENT = ("dram-jobs/", "dram-fleet/Pushes", "dram-fleet/Dropped points", "dram-fleet/Backend")
"""What the tutorial's half has not: jobs, and a gateway."""
SHOWN = [asked for asked in queries() if not asked.where.startswith(ABSENT)]

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=True) as plane:
        yield plane


def test_from_nothing_to_a_rolled_back_release(
    tmp_path: Path, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first, port = free_ports(2)
    devices = f"127.0.0.1:{first}"
    pods = tmp_path_factory.mktemp("pods")
    set_desk(tmp_path)
    with (
        S3Server(public="releases") as s3,
        PrometheusServer(config=scraping(devices, operator=f"127.0.0.1:{port}")) as prometheus,
        OperatorPod(plane, "dram-system", pods / "operator", port) as operator,
        ReleasePods(plane.api(), "shop", pods / "release"),
    ):
        for bucket in ("models", "releases"):
            s3.bucket(bucket)
        given = settings(s3, prometheus.url, devices, "dram.test/operator:0.1.0", "dram.test/worker:0.1.0")

        code, printed = typed(tmp_path, given, plane.kubeconfig)
        silent = [asked.where for asked in SHOWN if not was_shown(prometheus.url, asked, "tutorial")]

    assert code == 0, f"{printed}\n{operator.log[-8000:]}"
    tells_the_story(printed)
    assert silent == [], "panels that had nothing to show while it happened"
