"""What `make demo-cluster` cannot do without is said before anything is started."""

import pytest

from tests.cluster.node import NodeImpossible
from tests.e2e import demo
from tests.e2e.cluster import ClusterUnknown


def test_a_machine_that_cannot_be_a_node_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NodeImpossible, match=r"apt install|needs root.*KUBECONFIG"):
        demo.main([])


def test_a_cluster_without_our_images_is_told_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    for name in ("OPERATOR", "WORKER", "AGENT"):
        monkeypatch.delenv(f"DRAM_E2E_{name}_IMAGE", raising=False)
    with pytest.raises(ClusterUnknown, match=r"DRAM_E2E_OPERATOR_IMAGE and .*make images"):
        demo.main([])
