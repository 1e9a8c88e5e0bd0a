"""The operator has the rights that it uses, and no other."""

import pytest

from tests.cluster.audit import accesses, rules_accesses
from tests.e2e.installation import Installation
from tests.e2e.story import Story


def test_the_verbs_in_the_audit_log_equal_the_operators_roles(installation: Installation, undisturbed: Story) -> None:
    """Last by name, so that the log tells of everything before it."""
    log = installation.cluster.audit_log
    if log is None:
        pytest.skip("the API server's audit log cannot be read on a cluster given by KUBECONFIG; unset it to run this")

    assert accesses(log, installation.user) == rules_accesses(installation.rules())
