"""The chart's servers for trying out, as real pods: restricted, with a read-only root, and the operator begins with them.

This installation serves a namespace of its own, in which there is no job: the one under test serves all namespaces.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.api import wait_until
from tests.e2e.installation import CHART, RESTRICTED, Installation, helm, is_ready
from tests.e2e.servers import images

NAMESPACE = RELEASE = "dram-tried-out"
PARTS = ("operator", "tryout-s3", "tryout-prometheus")


@pytest.fixture
def values(installation: Installation) -> dict[str, Any]:
    cluster = installation.cluster
    tryout: dict[str, Any] = {"enabled": True, "namespaces": [NAMESPACE]}
    if cluster.node is not None:
        tryout |= {name: {"image": named(image)} for name, image in images(cluster.node).items()}
    operator, crds = named(cluster.operator_image), {"enabled": False}
    return {"replicas": 1, "image": operator, "namespaces": [NAMESPACE], "crds": crds, "tryout": tryout}


def named(image: str) -> dict[str, str]:
    repository, tag = image.rsplit(":", 1)
    return {"repository": repository, "tag": tag}


@pytest.fixture
def tried_out(installation: Installation, values: dict[str, Any]) -> Iterator[Installation]:
    metadata = {"name": NAMESPACE, "labels": RESTRICTED}
    installation.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    where = ("--namespace", NAMESPACE)
    try:
        helm(installation.cluster, "install", RELEASE, str(CHART), *where, "--values", "-", values=values)
        yield installation
    finally:
        helm(installation.cluster, "uninstall", RELEASE, *where, "--ignore-not-found", "--wait")
        installation.api.delete("Namespace", NAMESPACE)


def test_the_operator_is_ready_with_the_servers_beside_it(tried_out: Installation) -> None:
    api = tried_out.api

    def pods(part: str) -> list[dict[str, Any]]:
        return api.list("Pod", NAMESPACE, labels=f"app.kubernetes.io/component={part}")

    def explain() -> str:
        return "\n".join(f"{pod['metadata']['name']}: {pod['status']}" for part in PARTS for pod in pods(part))

    for part in PARTS:
        wait_until(lambda part=part: any(map(is_ready, pods(part))), f"{part} to be ready", explain=explain)  # type: ignore[misc]
    (operator,) = pods("operator")
    said = api.logs(operator["metadata"]["name"], NAMESPACE, container="tryout")
    assert "s3://releases: begun" in said
    assert "s3://dram/sample: a tiny teacher" in said
