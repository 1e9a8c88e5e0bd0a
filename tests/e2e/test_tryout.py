"""The chart's servers for trying out, as real pods: restricted, with a read-only root, and the operator begins with them.

This installation serves a namespace of its own, in which there is no job: the one under test serves all namespaces.
"""

from collections.abc import Iterator

import pytest

from tests.cluster.api import wait_until
from tests.cluster.audit import accesses, rules_accesses
from tests.e2e.installation import Installation
from tests.e2e.tryout import Tryout

NAME = "dram-tried-out"


@pytest.fixture
def tried_out(installation: Installation) -> Iterator[Tryout]:
    made = Tryout(installation.cluster, NAME, NAME)
    try:
        made.install(replicas=1, namespaces=[NAME], crds={"enabled": False}, tryout={"namespaces": [NAME]})
        yield made
    finally:
        made.uninstall()


def test_the_operator_is_ready_with_the_servers_beside_it(tried_out: Tryout) -> None:
    api = tried_out.api
    (operator,) = tried_out.pods("operator")
    said = api.logs(operator["metadata"]["name"], NAME, container="tryout")
    assert "s3://releases: begun" in said
    assert "s3://dram/sample: a tiny teacher" in said
    if log := tried_out.cluster.audit_log:
        account = f"{tried_out.name}-prometheus"
        granted = rules_accesses(api.get("Role", account, NAME)["rules"])
        wait_until(
            lambda: accesses(log, f"system:serviceaccount:{NAME}:{account}") == granted,
            "Prometheus to ask for what it may, and no more",
            explain=lambda: str(accesses(log, f"system:serviceaccount:{NAME}:{account}") ^ granted),
        )
