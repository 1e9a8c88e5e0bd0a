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
from tests.tutorial.operator_pod import OperatorPod
from tests.tutorial.session import scraping, set_desk, settings, tells_the_story, typed

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=True) as plane:
        yield plane


def test_from_nothing_to_a_rolled_back_release(
    tmp_path: Path, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> None:
    devices = f"127.0.0.1:{free_ports(1)[0]}"
    pods = tmp_path_factory.mktemp("pods")
    set_desk(tmp_path)
    with (
        S3Server(public="releases") as s3,
        PrometheusServer(config=scraping(devices)) as prometheus,
        OperatorPod(plane, "dram-system", pods / "operator") as operator,
        ReleasePods(plane.api(), "shop", pods / "release"),
    ):
        for bucket in ("models", "releases"):
            s3.bucket(bucket)
        given = settings(s3, prometheus.url, devices, "dram.test/operator:0.1.0", "dram.test/worker:0.1.0")

        code, printed = typed(tmp_path, given, plane.kubeconfig)

    assert code == 0, f"{printed}\n{operator.log[-8000:]}"
    tells_the_story(printed)
