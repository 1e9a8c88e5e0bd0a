"""The operator has the rights that it uses, and no other; and nobody else of the installation asks the API server for anything."""

from pathlib import Path

import pytest

from tests.cluster.api import wait_until
from tests.cluster.audit import accesses, places, refused, rules_accesses, users
from tests.e2e.installation import NAMESPACE, RELEASE, Installation
from tests.e2e.story import Story
from tests.e2e.test_selftest import POD
from tests.e2e.test_tryout import NAME as TRIED_OUT
from tests.e2e.tiny import job_for

CONTROLLERS = "system:serviceaccount:kube-system:"
"""Of Kubernetes itself."""
OTHERS = {
    f"system:serviceaccount:{NAMESPACE}:{POD}",
    f"system:serviceaccount:{TRIED_OUT}:{TRIED_OUT}",
    f"system:serviceaccount:{TRIED_OUT}:{TRIED_OUT}-tryout-prometheus",
}
"""The other accounts that the chart makes: the test of each compares what it asks for; the second is an operator again."""


@pytest.fixture(scope="module")
def log(installation: Installation) -> Path:
    """What the API server was asked."""
    if installation.cluster.audit_log is None:
        pytest.skip("the API server's audit log cannot be read on a cluster given by KUBECONFIG; unset it to run this")
    return installation.cluster.audit_log


def repeated(story: Story) -> bool:
    """Whether some event was counted again instead of told anew."""
    return any(event.get("count", 1) > 1 for event in story.api.list("Event", story.namespace))


def test_the_verbs_in_the_audit_log_equal_the_operators_roles(
    installation: Installation, story: Story, log: Path, request: pytest.FixtureRequest
) -> None:
    """After the other stories, so that the log tells of them; what they need not do, a repeated event, is done here."""
    if request.session.testsfailed:
        pytest.skip("a story before this one failed, so that the log need not tell of every right; mend that one first")
    metadata = {"name": "no-jobs", "namespace": story.namespace}
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": metadata,
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    story.api.apply(quota)
    wait_until(
        lambda: story.api.get("ResourceQuota", "no-jobs", story.namespace).get("status", {}).get("hard"), "quota"
    )
    story.apply(job_for(story))
    wait_until(lambda: repeated(story), "an event that is told twice", explain=story.explain)

    assert accesses(log, installation.user) == rules_accesses(installation.rules())


def test_the_operator_asked_for_nothing_that_it_has_no_right_to(installation: Installation, log: Path) -> None:
    since = installation.api.get("Deployment", RELEASE, NAMESPACE)["metadata"]["creationTimestamp"]
    assert refused(log, installation.user, since) == []
    assert places(log, installation.user, "leases") == {NAMESPACE}, "leases are the operator's own"


def test_no_other_pod_of_the_installation_asks_the_api_server(installation: Installation, log: Path) -> None:
    accounts = {user for user in users(log) if user.startswith("system:serviceaccount:")}
    assert {user for user in accounts if not user.startswith(CONTROLLERS)} <= {installation.user} | OTHERS
