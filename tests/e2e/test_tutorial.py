"""The tutorial's second half on a whole cluster, typed as it stands there: operator and release run as pods."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.api import wait_until
from tests.cluster.processes import free_ports
from tests.cluster.prometheus import PrometheusServer
from tests.cluster.s3 import S3Server
from tests.e2e.cluster import Cluster
from tests.tutorial.session import scraping, set_desk, settings, tells_the_story, typed

NAMESPACES = ("shop", "dram-system")


@pytest.fixture
def empty(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster without Dram, before and after: the other stories install their own into a namespace of the same name."""
    yield cluster
    for name in NAMESPACES:
        cluster.api.delete("Namespace", name)
    wait_until(lambda: not any(cluster.api.find("Namespace", name) for name in NAMESPACES), "the namespaces to go")
    for kind in ("distillationjobs", "edgerollouts"):
        cluster.api.delete("CustomResourceDefinition", f"{kind}.dram.dev")


@pytest.mark.long
def test_from_nothing_to_a_rolled_back_release(empty: Cluster, tmp_path: Path) -> None:
    devices = f"{empty.host}:{free_ports(1, empty.host)[0]}"
    set_desk(tmp_path)
    with (
        S3Server(empty.host, public="releases") as s3,
        PrometheusServer(config=scraping(devices), address=empty.host) as prometheus,
    ):
        for bucket in ("models", "releases"):
            s3.bucket(bucket)
        given = settings(s3, prometheus.url, devices, empty.operator_image, empty.worker_image)

        code, printed = typed(tmp_path, given, empty.kubeconfig)

    assert code == 0, printed
    tells_the_story(printed)
