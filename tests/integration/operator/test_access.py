"""The operator's rights: what it asks of the API server is what its roles in the chart allow, verb for verb."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.builders import a_job
from tests.cluster import audit
from tests.cluster.api import Api, Object, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.cluster.s3 import S3Server
from tests.integration.operator.jobs import condition, stages, tell, wait_for
from tests.integration.operator.kubelet import WORKS, Kubelet
from tests.integration.operator.replica import Replica
from tests.integration.operator.rollouts import Site, a_site, signed_artifacts
from tests.integration.operator.test_progress import post, progress_settings

RULES = Path(__file__).parents[3] / "charts" / "dram" / "files" / "rbac"


@pytest.fixture
def site(plane: ControlPlane, s3_server: S3Server, tmp_path: Path) -> Iterator[Site]:
    with a_site(plane, s3_server, tmp_path / "site") as site:
        yield site


@pytest.mark.long
def test_the_audit_log_of_an_eventful_run_equals_the_roles(
    plane: ControlPlane, api: Api, namespace: str, site: Site, tmp_path: Path
) -> None:
    rules = [
        rule
        for name in ("objects", "reviews", "lease")
        for rule in yaml.safe_load((RULES / f"{name}.yaml").read_text())
    ]
    kubeconfig = plane.service_account_kubeconfig(namespace, "dram-operator", rules)
    settings = progress_settings(tmp_path) | site.settings() | {"lease_namespace": namespace}
    held = {"train"}
    quota("count/jobs.batch", api, namespace)
    with (
        Replica(kubeconfig, (namespace,), settings=settings, make_artifacts=signed_artifacts) as replica,
        Kubelet(api, lambda stage, _: None if stage in held else WORKS),
    ):
        wait_until(lambda: replica.operator.leads, "the replica to lead")
        assert (
            post(replica, "made up", tmp_path / "ca.crt", b'{"stage":"train","attempt":1,"step":1,"totalSteps":2}')
            == 401
        )
        api.create(site.rollout(namespace, "eventful").manifest())
        api.create(a_job().named("eventful", namespace).having("spec.ttlSecondsAfterFinished", 1).manifest())
        wait_until(lambda: refused_twice(api, namespace), "the refusal of the Job to be counted")
        quota("pods", api, namespace)
        job = wait_for(api, namespace, "eventful", "Succeeded", "Unknown", "QuotaExceeded")
        wait_until(lambda: "requested: pods" in message(api, namespace), "the refusal of the pods to be told")
        api.delete("ResourceQuota", "few", namespace)
        wait_until(
            lambda: train_phase(api, namespace) == ["Running"],
            "the training pod to run",
            explain=lambda: tell(api, namespace),
        )
        api.patch("DistillationJob", "eventful", namespace, {"spec": {"suspend": True}})
        job = wait_for(api, namespace, "eventful", "Reconciling", "False", "Suspended")
        held.clear()
        api.patch("DistillationJob", "eventful", namespace, {"spec": {"suspend": False}})
        wait_until(lambda: api.find("DistillationJob", "eventful", namespace) is None, "the job to end and to go")
        site.wait(namespace, "eventful", "to be told to its devices", is_told)
        api.delete("EdgeRollout", "eventful", namespace)
        wait_until(lambda: api.find("EdgeRollout", "eventful", namespace) is None, "the rollout to go")

    assert condition(job, "DataReady") == ("True", "Completed")
    user = f"system:serviceaccount:{namespace}:dram-operator"
    assert plane.audit_verbs(user) == audit.rules_accesses(rules)


def is_told(rollout: Object) -> bool:
    """Whether its document is signed."""
    return condition(rollout, "Published")[0] == "True" and "finalizers" in rollout["metadata"]


def quota(resource: str, api: Api, namespace: str) -> None:
    """Allow none of a resource."""
    api.delete("ResourceQuota", "few", namespace)
    body: Object = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": namespace}}
    api.create(body | {"spec": {"hard": {resource: "0"}}})
    wait_until(lambda: api.get("ResourceQuota", "few", namespace).get("status", {}).get("hard"), "the quota to count")


def refused_twice(api: Api, namespace: str) -> bool:
    events = api.list("Event", namespace, fields="reason=CreateRefused")
    return any(event["count"] > 1 for event in events)


def message(api: Api, namespace: str) -> str:
    job = api.get("DistillationJob", "eventful", namespace)
    return str(stages(job)["resolve"].get("message"))


def train_phase(api: Api, namespace: str) -> list[str]:
    return [pod["status"]["phase"] for pod in api.list("Pod", namespace, labels="dram.dev/stage=train")]
