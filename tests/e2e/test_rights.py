"""The operator has the rights that it uses, and no other."""

import pytest

from tests.cluster.api import wait_until
from tests.cluster.audit import accesses, rules_accesses
from tests.e2e.installation import Installation
from tests.e2e.story import Story
from tests.e2e.tiny import job_for


def repeated(story: Story) -> bool:
    """Whether some event was counted again instead of told anew."""
    return any(event.get("count", 1) > 1 for event in story.api.list("Event", story.namespace))


def test_the_verbs_in_the_audit_log_equal_the_operators_roles(installation: Installation, story: Story) -> None:
    """After the other stories, so that the log tells of them; what they need not do, a repeated event, is done here."""
    log = installation.cluster.audit_log
    if log is None:
        pytest.skip("the API server's audit log cannot be read on a cluster given by KUBECONFIG; unset it to run this")
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
