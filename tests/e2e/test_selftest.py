"""`helm test` on a whole cluster: the pod that the chart starts, and the real stages of its job."""

import yaml

from tests.cluster.audit import accesses, rules_accesses
from tests.e2e.installation import CHART, NAMESPACE, RELEASE, Installation, helm

POD = f"{RELEASE}-selftest"


def test_helms_test_runs_a_job_through_every_stage_and_leaves_nothing(installation: Installation) -> None:
    helm(installation.cluster, "test", RELEASE, "--timeout", "20m")

    said = installation.api.logs(POD, NAMESPACE)
    for stage in ("resolve", "train", "evaluate-gguf-q8-0", "bench-gguf-q8-0", "publish"):
        assert f"  {stage}: Succeeded" in said, said
    assert "succeeded after" in said
    assert installation.api.list("DistillationJob", NAMESPACE) == []
    assert installation.api.find("Role", POD, NAMESPACE) is None
    if log := installation.cluster.audit_log:
        granted = yaml.safe_load((CHART / "files" / "rbac" / "selftest.yaml").read_text())
        assert accesses(log, f"system:serviceaccount:{NAMESPACE}:{POD}") == rules_accesses(granted)
