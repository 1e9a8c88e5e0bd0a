"""`make demo-cluster` on a whole cluster, and the way back."""

from collections.abc import Iterator

import pytest

from tests.cluster.api import wait_until
from tests.e2e import demo
from tests.e2e.cluster import Cluster
from tests.e2e.fleet import SIZE
from tests.e2e.installation import NAMESPACE

pytestmark = pytest.mark.long


@pytest.fixture
def empty(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    demo.leave(cluster)
    wait_until(lambda: cluster.api.find("Namespace", NAMESPACE) is None, "the namespace to go")
    for kind in ("distillationjobs", "edgerollouts"):
        cluster.api.delete("CustomResourceDefinition", f"{kind}.dram.dev")


def test_the_story_is_left_running(empty: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    log = demo.Log()

    rollout = demo.play(empty, log)

    status = rollout.status()
    assert [record["outcome"] for record in status["history"]] == ["Completed", "RolledBack"]
    assert status["stable"]["artifact"] == f"{demo.NAME}/{demo.VARIANT}", status["stable"]
    assert len(rollout.fleet.running()) == SIZE
    printed = capsys.readouterr().out
    assert all(f"==> {name}" in printed for name in log.seconds)
    assert "EdgeRollout RollingBack: " in printed
