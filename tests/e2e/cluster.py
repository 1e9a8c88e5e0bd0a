"""The cluster under the tests: the one that KUBECONFIG names, or a node of our own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from images import build
from tests.cluster.api import Api, Object
from tests.cluster.node import Node

IMAGES = ("DRAM_E2E_OPERATOR_IMAGE", "DRAM_E2E_WORKER_IMAGE", "DRAM_E2E_AGENT_IMAGE")
HOST = "DRAM_E2E_HOST"


@dataclass(frozen=True)
class Cluster:
    """What the tests need to know of a cluster."""

    kubeconfig: Path
    host: str
    """Address of this machine as pods see it: the S3 server listens there."""
    operator_image: str
    worker_image: str
    agent_image: str
    audit_log: Path | None = None
    """The API server's audit log, where we can read it."""
    node: Node | None = None
    """The node, where it is our own."""

    @property
    def api(self) -> Api:
        """Requests as the administrator."""
        return Api(self.kubeconfig)

    def kill_container(self, pod: Object) -> None:
        """SIGKILL the container of a pod; its volumes stay. On a cluster that is not ours the whole pod goes."""
        if self.node is None:
            self.api.kill_pod(pod["metadata"]["name"], pod["metadata"]["namespace"])
            return
        (status,) = pod["status"]["containerStatuses"]
        self.node.kill(status["containerID"].removeprefix("containerd://"))


class ClusterUnknown(RuntimeError):
    """KUBECONFIG's cluster cannot be used as it is; the message says what else has to be set."""


@contextmanager
def cluster() -> Iterator[Cluster]:
    """KUBECONFIG's cluster, or a node that is there for as long as it is needed."""
    if kubeconfig := os.environ.get("KUBECONFIG"):
        yield given(Path(kubeconfig))
    elif os.environ.get("DRAM_E2E_KEEP"):
        node = Node()
        node.ensure()
        yield own(node)
    else:
        with Node() as node:
            yield own(node)


def given(kubeconfig: Path, *, reaches_us: bool = True) -> Cluster:
    """A cluster of the user's, whose pods may have to reach this machine. ClusterUnknown."""
    names = [*IMAGES, HOST] if reaches_us else list(IMAGES)
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        address = ", and the address under which its pods reach this machine, which has to reach theirs"
        raise ClusterUnknown(
            f"KUBECONFIG is set, so {' and '.join(missing)} must be too: images that the cluster can pull (`make images` builds "
            f"them){address if reaches_us else ''}. Unset KUBECONFIG to start a node here."
        )
    operator, worker, agent = (os.environ[name] for name in IMAGES)
    return Cluster(kubeconfig, os.environ.get(HOST, ""), operator, worker, agent)


def own(node: Node) -> Cluster:
    """A node of our own that is up, with our images."""
    node.load(build.build_pause())
    operator, worker, agent = (build.build(name) for name in ("operator", "worker", "agent"))
    for image in (operator, worker, agent):
        node.load(image)
    return Cluster(node.kubeconfig, node.address, operator, worker, agent, node.audit_log, node)
