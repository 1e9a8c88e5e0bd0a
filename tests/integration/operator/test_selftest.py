"""`helm test`: what its pod runs, with the rights, variables and arguments that the chart gives it."""

import pytest

from dram_workers.errors import WorkerReason
from dram_workers.results import StageMessage
from tests.cluster.api import Api, Object
from tests.cluster.audit import rules_accesses
from tests.cluster.controlplane import ControlPlane
from tests.cluster.s3 import S3Server
from tests.integration.chart.rendering import of_kind, render
from tests.integration.kubectl.seat import Seat
from tests.integration.operator.kubelet import WORKS, Ending, Kubelet
from tests.integration.operator.replica import Replica

ACCOUNT = "dram-selftest"
PATCHED_SECONDS = 0.1


@pytest.fixture
def objects(s3_server: S3Server, namespace: str) -> list[Object]:
    """The chart with a storage."""
    s3_server.bucket("selftest")
    storage = {"uri": f"s3://selftest/{namespace}", "endpoint": s3_server.endpoint, "region": s3_server.region}
    values = [f"storage.{name}={value}" for name, value in storage.items()]
    return render(*values, "storage.pathStyle=true", "storage.secretRef.name=s3", namespace=namespace)


@pytest.fixture
def seat(
    plane: ControlPlane,
    objects: list[Object],
    s3_server: S3Server,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Seat:
    """The pod: its account with its role, and its variables."""
    (pod,), (role,) = (of_kind(objects, "Pod"), [one for one in of_kind(objects, "Role") if ACCOUNT in str(one)])
    (container,) = pod["spec"]["containers"]
    credentials = s3_server.owner.environment()
    for variable in container["env"]:
        name = variable["name"]
        if name.startswith("DRAM_"):
            monkeypatch.setenv(name, variable["value"])
        elif name in credentials:
            assert variable["valueFrom"]["secretKeyRef"]["name"] == "s3"
            monkeypatch.setenv(name, credentials[name])
    monkeypatch.setattr("dram_operator.cli.selftest.LOOK_SECONDS", PATCHED_SECONDS)
    assert container["args"] == ["selftest"]
    kubeconfig = plane.service_account_kubeconfig(namespace, ACCOUNT, role["rules"], everywhere=False)
    return Seat(f"system:serviceaccount:{namespace}:{ACCOUNT}", kubeconfig)


def keys(s3_server: S3Server, namespace: str) -> list[str]:
    listed = s3_server.client().list_objects_v2(Bucket="selftest", Prefix=f"{namespace}/")
    return [found["Key"] for found in listed.get("Contents", ())]


def test_a_job_succeeds_and_nothing_stays_behind(
    plane: ControlPlane, api: Api, s3_server: S3Server, seat: Seat, objects: list[Object], namespace: str
) -> None:
    seen: list[Object] = []
    stored: list[str] = []

    def script(stage: str, attempt: int) -> Ending:
        seen.extend(api.list("DistillationJob", namespace))
        stored.extend(keys(s3_server, namespace))
        return WORKS

    with Replica(plane.kubeconfig, (namespace,)), Kubelet(api, script) as kubelet:
        result = seat.dram("selftest")

    assert result.exit_code == 0, result.output
    assert "  train: Succeeded" in result.output
    assert "succeeded after" in result.output
    assert {stage for name in kubelet.started for stage in ("resolve", "train", "evaluate", "publish") if stage in name}
    spec = seen[0]["spec"]
    assert f"{spec['teacher']['uri']}/model.safetensors".removeprefix("s3://selftest/") in stored
    assert spec["storage"]["secretRef"] == {"name": "s3"}
    assert api.list("DistillationJob", namespace) == []
    assert keys(s3_server, namespace) == []
    (role,) = [one for one in of_kind(objects, "Role") if ACCOUNT in str(one)]
    assert plane.audit_verbs(seat.user) == rules_accesses(role["rules"])


def test_a_job_that_fails_is_told_and_taken_away_too(
    plane: ControlPlane, api: Api, s3_server: S3Server, seat: Seat, namespace: str
) -> None:
    wrong = StageMessage(reason=WorkerReason.EMPTY_DATASET, message="0 samples").model_dump_json()

    def script(stage: str, attempt: int) -> Ending:
        return Ending(64, wrong) if stage == "data" else WORKS

    with Replica(plane.kubeconfig, (namespace,)), Kubelet(api, script):
        result = seat.dram("selftest")
    assert result.exit_code == 4
    assert "failed (EmptyDataset): " in result.output
    assert api.list("DistillationJob", namespace) == []
    assert keys(s3_server, namespace) == []


def test_a_job_that_nobody_works_on_ends_the_test_in_time(
    api: Api, s3_server: S3Server, seat: Seat, namespace: str
) -> None:
    result = seat.dram("selftest", "--timeout", "1")
    assert result.exit_code == 4
    assert "has not ended after 1 s" in result.output
    assert api.list("DistillationJob", namespace) == []
    assert keys(s3_server, namespace) == []


def test_without_storage_or_credentials_it_says_what_to_set(seat: Seat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    result = seat.dram("selftest")
    assert (result.exit_code, "cannot be used" in result.output) == (4, True)
    monkeypatch.delenv("DRAM_STORAGE")
    result = seat.dram("selftest")
    assert (result.exit_code, "set `storage`" in result.output) == (4, True)


def test_the_test_runs_where_jobs_are_served() -> None:
    (pod,) = of_kind(render("namespaces={served,other}"), "Pod")
    assert pod["metadata"]["namespace"] == "served"
    (pod,) = of_kind(render("namespaces={served,chart}"), "Pod")
    assert pod["metadata"]["namespace"] == "chart"


def test_an_account_with_rights_to_the_storage_is_used() -> None:
    objects = render("storage.uri=s3://a/b", "storage.serviceAccountName=rich")
    (pod,) = of_kind(objects, "Pod")
    assert pod["spec"]["serviceAccountName"] == "rich"
    assert [one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")] == ["dram"]
    (binding,) = [one for one in of_kind(objects, "RoleBinding") if ACCOUNT in one["metadata"]["name"]]
    assert [subject["name"] for subject in binding["subjects"]] == ["rich"]
